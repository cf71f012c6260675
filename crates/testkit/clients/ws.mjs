// One plain WebSocket client (`ws`).
import WebSocket from "ws";

import { decode } from "./binary.mjs";

export function open({ url, protocols = [], headers = {}, opts = {} }, report) {
  const socket = new WebSocket(url, protocols, { headers, ...opts });
  socket.on("open", () => report("open", { protocol: socket.protocol }));
  socket.on("message", (data, isBinary) => report("message", body(data, isBinary)));
  socket.on("ping", (data) => report("ping", { text: data.toString() }));
  socket.on("pong", (data) => report("pong", { text: data.toString() }));
  socket.on("unexpected-response", (_request, response) => {
    const chunks = [];
    response.on("data", (chunk) => chunks.push(chunk));
    response.on("end", () =>
      report("refused", {
        status: response.statusCode,
        headers: response.headers,
        body: Buffer.concat(chunks).toString(),
      }),
    );
  });
  socket.on("error", (error) => report("error", { message: error.message }));
  socket.on("close", (code, reason) => report("close", { code, reason: reason.toString() }));

  return {
    // "json" is sent as its text, "text" as it stands, "data" may be {"$binary": base64}.
    send: ({ json, text, data }) => {
      if (json !== undefined) socket.send(JSON.stringify(json));
      else if (text !== undefined) socket.send(text);
      else socket.send(decode(data));
    },
    ping: ({ text = "" }) => socket.ping(text),
    pause: () => socket.pause(),
    resume: () => socket.resume(),
    close: ({ code, reason }) => socket.close(code, reason),
    cut: () => socket.terminate(),
    state: () => ({ open: socket.readyState === WebSocket.OPEN }),
  };
}

function body(data, isBinary) {
  if (isBinary) return { data: { $binary: data.toString("base64") } };
  const text = data.toString();
  try {
    return { json: JSON.parse(text) };
  } catch {
    return { text };
  }
}
