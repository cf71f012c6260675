// What the checks of this folder share: the stock client, tokens and publishing. Secrets are those of docker-compose.yml
// unless JWT_SECRET and API_KEY are set.
import { createHmac } from "node:crypto";
import { createRequire } from "node:module";

const { env } = process;

export const { io } = createRequire(new URL("../../crates/testkit/clients/", import.meta.url))("socket.io-client");
export const bearer = { authorization: `Bearer ${env.API_KEY ?? "dev-key"}` };

export function token(user) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const signed = `${part({ alg: "HS256", typ: "JWT" })}.${part({ sub: user, exp: Math.floor(Date.now() / 1000) + 3600 })}`;
  return `${signed}.${createHmac("sha256", env.JWT_SECRET ?? "dev-secret").update(signed).digest("base64url")}`;
}

export async function publish(publisher, event) {
  const response = await fetch(`${publisher}/v1/events`, {
    method: "POST",
    headers: { ...bearer, "content-type": "application/json" },
    body: JSON.stringify(event),
  });
  const text = await response.text();
  if (response.status !== 202) throw Object.assign(new Error(`the publisher answered ${response.status}: ${text}`), { status: response.status });
}

// Resolves once the socket is connected. What is about the client is final; a transport that breaks is tried again.
export function connected(socket) {
  return new Promise((resolve, reject) => {
    socket.once("connect", resolve);
    socket.on("connect_error", (error) => !socket.active && reject(error));
  });
}
