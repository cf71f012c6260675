// Soak: clients stay for an hour with a slow stream each, and lose their network every few minutes.
//
// CLIENTS (500), SECONDS (3600), RATE of each client a second (0.2), TRANSPORT (mixed)

import exec from "k6/execution";

import { Client } from "./lib/client.js";
import { Ledger } from "./lib/ledger.js";
import { thresholds as usual } from "./lib/metrics.js";
import { stream } from "./lib/publish.js";
import { clients, rate, seconds } from "./lib/settings.js";
import { jitter, sleep, until } from "./lib/time.js";

const STAY = 180000;

export const thresholds = { ...usual, carillon_latency: ["p(95)<2000"], carillon_recovered: ["rate==1"] };
export const options = {
  scenarios: {
    soak: { executor: "per-vu-iterations", exec: "soak", vus: clients(500), iterations: 1, maxDuration: `${seconds(3600) + 180}s` },
  },
  thresholds,
};

export async function soak() {
  const user = `soak-${exec.vu.idInTest}`;
  const ledger = new Ledger();
  const client = new Client(user).on("numbered", ({ stream, n, total, at }) => {
    ledger.take(stream, n, at);
    ledger.end(stream, total);
  });
  await sleep(jitter(20000));
  if (!(await client.connect())) return;
  const end = Date.now() + seconds(3600) * 1000;
  const drops = dropUntil(client, end);
  await stream(`user:${user}`, user, Math.max(1, Math.round(rate(0.2) * seconds(3600))), seconds(3600));
  await drops;
  await until(() => ledger.isComplete(1), 60000);
  ledger.close(1);
  client.close();
}

async function dropUntil(client, end) {
  while (Date.now() + STAY < end) {
    await sleep(STAY / 2 + jitter(STAY));
    if (client.isConnected && Date.now() < end) client.drop();
  }
}
