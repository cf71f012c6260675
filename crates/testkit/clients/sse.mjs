// One EventSource client. It reconnects by itself with Last-Event-ID, as browsers do.
import { EventSource } from "eventsource";

export function open({ url, headers = {} }, report) {
  let target = url;
  const source = new EventSource(url, {
    // The address may move to another server between two connections; the client itself stays untouched.
    fetch: (_url, init) => fetch(target, { ...init, headers: { ...init.headers, ...headers } }),
  });
  source.addEventListener("open", () => report("open"));
  source.addEventListener("message", (event) => {
    let json = null;
    try {
      json = JSON.parse(event.data);
    } catch {
      // Left null: the test sees the text.
    }
    report("message", { json, text: event.data, lastEventId: event.lastEventId });
  });
  source.addEventListener("error", (event) =>
    report("error", {
      status: event.code ?? null,
      message: event.message ?? null,
      final: source.readyState === EventSource.CLOSED,
    }),
  );
  return {
    setUrl: ({ url: next }) => void (target = next),
    close: () => source.close(),
    state: () => ({ open: source.readyState === EventSource.OPEN }),
  };
}
