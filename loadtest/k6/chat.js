// Chat mix: rooms of ten; everybody speaks now and then and hears everybody, over every transport.
//
// CLIENTS (50), SECONDS (20), RATE of each client a second (0.5), TRANSPORT (mixed)

import exec from "k6/execution";

import { Client } from "./lib/client.js";
import { Ledger } from "./lib/ledger.js";
import { thresholds as usual } from "./lib/metrics.js";
import { clients, rate, seconds } from "./lib/settings.js";
import { jitter, sleep, until } from "./lib/time.js";

const MEMBERS = 10;
const GATHER = 8000;
const ALL = clients(50);

export const thresholds = usual;
export const options = {
  scenarios: {
    chat: { executor: "per-vu-iterations", exec: "chat", vus: ALL, iterations: 1, maxDuration: `${seconds(20) + 120}s` },
  },
  thresholds,
};

/** All clients begin to speak at the same time, when everybody is in. */
export function setup() {
  return { begin: Date.now() + GATHER };
}

export async function chat({ begin }) {
  const me = exec.scenario.iterationInTest;
  const room = `load:chat-${Math.floor(me / MEMBERS)}`;
  const speakers = Math.min(MEMBERS, ALL - Math.floor(me / MEMBERS) * MEMBERS);
  const ledger = new Ledger();
  const client = new Client(`chat-${me}`).on("said", ({ from, n, total, at }) => {
    ledger.take(from, n, at);
    ledger.end(from, total);
  });
  await sleep(jitter(GATHER / 2));
  if (!(await client.connect())) return;
  await client.ask("join", room);
  if (Date.now() > begin) ledger.comesLate();
  await sleep(begin - Date.now());
  const total = Math.max(1, Math.round(rate(0.5) * seconds(20)));
  for (let n = 1; n <= total; n++) {
    await sleep(jitter((2000 * seconds(20)) / total));
    await client.ask("say", { room, from: `chat-${me}`, n, total, at: Date.now() });
  }
  await until(() => ledger.isComplete(speakers), 2000 * seconds(20) + 20000);
  ledger.close(speakers);
  client.close();
}
