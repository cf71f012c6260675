#!/usr/bin/env node
// Counts what stock clients get while something is done to a cluster, such as a rolling restart: a third of them over
// WebSocket, a third by long-polling, a third upgraded. Fails if one of them lost, repeated or disordered an event.
//
//   EDGE=http://127.0.0.1:7000 PUBLISHER=http://127.0.0.1:7100 check-rollout.mjs
//
// CLIENTS (99), SECONDS (120), RATE (20 events a second), ROOM (all), LAST (60 seconds for what comes late), API_KEY, JWT_SECRET.
import { connected, io, publish, token } from "./stock.mjs";

const { env } = process;
const { EDGE = "http://127.0.0.1:7000", PUBLISHER = "http://127.0.0.1:7100", ROOM = "all" } = env;
const [CLIENTS, SECONDS, RATE, LAST] = [env.CLIENTS ?? 99, env.SECONDS ?? 120, env.RATE ?? 20, env.LAST ?? 60].map(Number);
const KINDS = [["websocket"], ["polling"], ["polling", "websocket"]];

const run = `${Date.now()}`;
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function join(index) {
  const transports = KINDS[index % KINDS.length];
  const socket = io(EDGE, { forceNew: true, transports, auth: { token: token(`rollout-${run}-${index}`) } });
  const client = { kind: transports.join("+"), socket, heard: [], came: 0, recovered: 0, silence: 0, last: 0 };
  socket.on(run, (number) => {
    const now = Date.now();
    if (client.last) client.silence = Math.max(client.silence, now - client.last);
    client.last = now;
    client.heard.push(number);
  });
  socket.on("connect", () => {
    client.came += 1;
    client.recovered += socket.recovered ? 1 : 0;
  });
  await connected(socket);
  return client;
}

// Publishes until the publisher has it: the id sees to it that it is stored once. A refusal is final.
async function send(number) {
  const event = { rooms: [ROOM], event: run, data: number, id: `rollout-${run}-${number}` };
  for (;;) {
    try {
      return await publish(PUBLISHER, event);
    } catch (error) {
      if (error.status && error.status < 500) throw error;
      await pause(200);
    }
  }
}

const clients = await Promise.all(Array.from({ length: CLIENTS }, (_, index) => join(index)));
console.log(`${clients.length} clients are connected; ${RATE} events a second for ${SECONDS} s`);
let published = 0;
const end = Date.now() + SECONDS * 1000;
while (Date.now() < end) {
  const due = Date.now() + 1000 / RATE;
  await send(published);
  published += 1;
  await pause(Math.max(0, due - Date.now()));
}
for (const until = Date.now() + LAST * 1000; Date.now() < until && clients.some(({ heard }) => heard.length < published); ) await pause(50);

const sum = (count) => clients.reduce((all, client) => all + count(client), 0);
const counts = {
  lost: sum(({ heard }) => published - new Set(heard).size),
  repeated: sum(({ heard }) => heard.length - new Set(heard).size),
  disordered: sum(({ heard }) => heard.filter((number, place) => number < heard[place - 1]).length),
};
console.log(`${published} published, ${sum(({ heard }) => heard.length)} deliveries, ${Object.entries(counts).map((pair) => pair.reverse().join(" ")).join(", ")}`);
console.log(`${sum(({ came }) => came - 1)} came back, ${sum(({ recovered }) => recovered)} of them recovered`);
for (const kind of new Set(clients.map((client) => client.kind))) {
  const silence = Math.max(...clients.filter((client) => client.kind === kind).map((client) => client.silence));
  console.log(`longest silence, ${kind}: ${(silence / 1000).toFixed(1)} s`);
}
for (const { socket } of clients) socket.close();
process.exitCode = Object.values(counts).some(Boolean) ? 1 : 0;
