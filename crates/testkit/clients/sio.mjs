// One socket.io-client, and everything it tells, as reports.
import { io } from "socket.io-client";

import { decode, encode } from "./binary.mjs";

export function open({ url, opts = {} }, report) {
  const socket = io(url, { forceNew: true, ...opts });
  const replies = new Map();
  const transport = () => socket.io.engine?.transport?.name ?? null;

  socket.io.on("open", () => {
    const engine = socket.io.engine;
    report("open", { engineId: engine.id ?? null, transport: engine.transport.name });
    engine.on("upgrade", (next) => report("upgrade", { transport: next.name }));
    engine.on("upgradeError", (error) => report("upgrade_error", { message: error.message }));
  });
  socket.io.on("reconnect_attempt", (attempt) => report("reconnect_attempt", { attempt }));
  socket.io.on("reconnect_failed", () => report("reconnect_failed"));
  socket.on("connect", () =>
    report("connect", { sid: socket.id, recovered: socket.recovered, transport: transport() }),
  );
  socket.on("connect_error", (error) =>
    report("connect_error", {
      message: error.message,
      data: encode(error.data),
      active: socket.active,
      status: typeof error.description === "number" ? error.description : null,
    }),
  );
  socket.on("disconnect", (reason, details) =>
    report("disconnect", { reason, detail: details?.description?.toString?.() ?? null }),
  );
  socket.onAny((name, ...args) => {
    const reply = typeof args.at(-1) === "function" ? args.pop() : null;
    report("event", { name, args: encode(args), asks: reply !== null });
    if (reply && replies.has(name)) reply(...replies.get(name));
  });

  const emitAck = ({ event, args = [], ack, timeout = 10_000 }) => {
    socket.timeout(timeout).emit(event, ...decode(args), (error, ...answer) => {
      report("ack", error ? { ack, error: error.message } : { ack, args: encode(answer) });
    });
  };

  return {
    emit: (command) =>
      command.ack === undefined
        ? void socket.emit(command.event, ...decode(command.args ?? []))
        : emitAck(command),
    volatile: ({ event, args = [] }) => void socket.volatile.emit(event, ...decode(args)),
    ackOn: ({ event, args }) => void replies.set(event, decode(args)),
    setAuth: ({ auth }) => void (socket.auth = auth),
    setUrl: ({ url: next }) => void (socket.io.uri = next),
    connect: () => void socket.connect(),
    disconnect: () => void socket.disconnect(),
    killTransport: () => void socket.io.engine?.close(),
    cut: () => void socket.io.engine?.transport?.ws?.terminate?.(),
    state: () => ({
      connected: socket.connected,
      sid: socket.id ?? null,
      recovered: socket.recovered,
      transport: transport(),
      engineId: socket.io.engine?.id ?? null,
    }),
  };
}
