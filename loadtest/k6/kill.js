// Reconnect after a kill: streams go on while an edge is killed (by loadtest/run, or by you), and clients lose their
// network now and then. Everybody comes back to another edge and gets what it missed.
//
// CLIENTS (50), SECONDS (30), RATE of each client a second (2), DROPS of each client (1), TRANSPORT (mixed)

import exec from "k6/execution";

import { Client } from "./lib/client.js";
import { Ledger } from "./lib/ledger.js";
import { thresholds as usual } from "./lib/metrics.js";
import { stream } from "./lib/publish.js";
import { clients, rate, seconds } from "./lib/settings.js";
import { jitter, sleep, until } from "./lib/time.js";

const DROPS = Number(__ENV.DROPS || 1);

export const thresholds = {
  ...usual,
  // What waits for a client that is away is late.
  carillon_latency: ["p(50)<2000"],
  carillon_reconnects: ["count>0"],
  carillon_recovered: ["rate==1"],
};
export const options = {
  scenarios: {
    kill: { executor: "per-vu-iterations", exec: "kill", vus: clients(50), iterations: 1, maxDuration: `${seconds(30) + 120}s` },
  },
  thresholds,
};

export async function kill() {
  const user = `kill-${exec.vu.idInTest}`;
  const ledger = new Ledger();
  const client = new Client(user).on("numbered", ({ stream, n, total, at }) => {
    ledger.take(stream, n, at);
    ledger.end(stream, total);
  });
  await sleep(jitter(2000));
  if (!(await client.connect())) return;
  const drops = dropNowAndThen(client, seconds(30) * 1000);
  await stream(`user:${user}`, user, Math.max(1, Math.round(rate(2) * seconds(30))), seconds(30));
  await drops;
  await until(() => ledger.isComplete(1), 60000);
  ledger.close(1);
  client.close();
}

async function dropNowAndThen(client, milliseconds) {
  for (let drop = 0; drop < DROPS; drop++) {
    await sleep(1000 + jitter(milliseconds / DROPS - 1000));
    if (client.isConnected) client.drop();
  }
}
