#!/usr/bin/env node
// Checks a cluster that `make up` has started, with stock clients: the demo page, an event at every edge, long-polling
// and upgrades through the proxy, and the view of the router. Addresses and secrets are those of docker-compose.yml.
import { randomUUID } from "node:crypto";
import { bearer, connected, io, publish, token } from "./stock.mjs";

const { env } = process;
const proxy = `http://127.0.0.1:${env.PROXY_PORT ?? 8080}`;
const edges = [env.EDGE_1_PORT ?? 7000, env.EDGE_2_PORT ?? 7001].map((port) => `http://127.0.0.1:${port}`);
const publisher = `http://127.0.0.1:${env.PUBLISHER_PORT ?? 7100}`;
const router = `http://127.0.0.1:${env.ROUTER_PORT ?? 7200}`;
const LIMIT_MS = 20_000;

const sockets = [];

function within(what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${LIMIT_MS / 1000} s in vain for ${what}`)), LIMIT_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

async function connect(url, user, options = {}) {
  const socket = io(url, { forceNew: true, auth: { token: token(user) }, ...options });
  sockets.push(socket);
  await within(`a connection to ${url}`, connected(socket));
  return socket;
}

// Publishes once, and waits until every socket has it.
async function reaches(receivers, rooms) {
  const mark = randomUUID();
  const heard = receivers.map(
    (socket) =>
      new Promise((resolve) => {
        const listen = (data) => {
          if (data?.mark !== mark) return;
          socket.off("check", listen);
          resolve();
        };
        socket.on("check", listen);
      }),
  );
  await publish(publisher, { rooms, event: "check", data: { mark } });
  await within(`an event for ${rooms} at ${receivers.length} clients`, Promise.all(heard));
}

const users = (count, name) => Array.from({ length: count }, (_, index) => `${name}-${index}-${randomUUID().slice(0, 8)}`);

// A cluster that has just been started is not ready yet; returns the demo page once it is.
async function ready() {
  const begun = Date.now();
  for (;;) {
    const page = await fetch(`${proxy}/demo`).catch((error) => ({ status: error.message }));
    if (page.status === 200) return page;
    if (Date.now() - begun > LIMIT_MS) throw new Error(`not ready after ${LIMIT_MS / 1000} s: ${page.status}`);
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

const checks = {
  "the demo page comes through the proxy": async () => {
    const text = await (await ready()).text();
    if (!text.includes("<html")) throw new Error(text.slice(0, 200));
  },
  "a client on each edge hears an event that was published once": async () => {
    const [user] = users(1, "both");
    await reaches(await Promise.all(edges.map((edge) => connect(edge, user, { transports: ["websocket"] }))), [`user:${user}`]);
  },
  "ten WebSocket clients of the proxy hear an event for everyone": async () => {
    const names = users(10, "ws");
    await reaches(await Promise.all(names.map((user) => connect(proxy, user, { transports: ["websocket"] }))), ["all"]);
  },
  "ten polling clients of the proxy hear their own events": async () => {
    const names = users(10, "poll");
    const polling = await Promise.all(names.map((user) => connect(proxy, user, { transports: ["polling"] })));
    for (let round = 0; round < 3; round += 1) {
      await Promise.all(polling.map((socket, index) => reaches([socket], [`user:${names[index]}`])));
    }
    if (polling.some((socket) => socket.io.engine.transport.name !== "polling")) throw new Error("not all are polling");
  },
  "ten clients change from polling to WebSocket through the proxy": async () => {
    const names = users(10, "up");
    const upgrading = await Promise.all(names.map((user) => connect(proxy, user)));
    const done = (socket) => socket.io.engine.transport.name === "websocket";
    await within(
      "all upgrades",
      Promise.all(upgrading.map((socket) => done(socket) || new Promise((resolve) => socket.io.engine.once("upgrade", resolve)))),
    );
    await reaches(upgrading, names.map((user) => `user:${user}`));
  },
  "the router sees a user's connections at both edges": async () => {
    const [user] = users(1, "seen");
    await Promise.all(edges.map((edge) => connect(edge, user, { transports: ["websocket"] })));
    const view = await (await fetch(`${router}/v1/users/${user}`, { headers: bearer })).json();
    if (!view.online || new Set(view.connections.map((one) => one.edge)).size !== edges.length) throw new Error(JSON.stringify(view));
  },
};

let failed = 0;
for (const [name, check] of Object.entries(checks)) {
  const begun = performance.now();
  try {
    await check();
    console.log(`ok      ${name} (${Math.round(performance.now() - begun)} ms)`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED  ${name}: ${error.message}`);
  }
}
for (const socket of sockets) socket.close();
process.exitCode = failed ? 1 : 0;
