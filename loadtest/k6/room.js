// One big room: everybody hears one stream.
//
// CLIENTS (100), SECONDS (20), RATE of the room a second (10), TRANSPORT (mixed)

import exec from "k6/execution";

import { Client } from "./lib/client.js";
import { Ledger } from "./lib/ledger.js";
import { thresholds as usual } from "./lib/metrics.js";
import { stream } from "./lib/publish.js";
import { clients, rate, seconds } from "./lib/settings.js";
import { jitter, sleep, until } from "./lib/time.js";

// Time in which all members come, before the stream begins.
const GATHER = 10;

export const thresholds = usual;
export const options = {
  scenarios: {
    members: { executor: "per-vu-iterations", exec: "member", vus: clients(100), iterations: 1, maxDuration: `${seconds(20) + 90}s` },
    speaker: { executor: "per-vu-iterations", exec: "speaker", vus: 1, iterations: 1, startTime: `${GATHER}s`, maxDuration: `${seconds(20) + 90}s` },
  },
  thresholds,
};

export async function member() {
  const ledger = new Ledger();
  const client = new Client(`member-${__VU}`).on("numbered", ({ stream, n, total, at }) => {
    ledger.take(stream, n, at);
    ledger.end(stream, total);
  });
  const begin = exec.scenario.startTime + GATHER * 1000;
  await sleep(jitter(GATHER * 500));
  if (!(await client.connect())) return;
  await client.ask("join", "load:room");
  if (Date.now() > begin) ledger.comesLate();
  await until(() => ledger.isComplete(1), begin + (seconds(20) + 30) * 1000 - Date.now());
  ledger.close(1);
  client.close();
}

export async function speaker() {
  await stream("load:room", "room", Math.round(rate(10) * seconds(20)), seconds(20));
}
