// Connect storm: all clients come at once, and each gets one event of its own.
//
// CLIENTS (200), TRANSPORT (mixed)

import exec from "k6/execution";

import { Client } from "./lib/client.js";
import { Ledger } from "./lib/ledger.js";
import { thresholds as usual } from "./lib/metrics.js";
import { stream } from "./lib/publish.js";
import { clients } from "./lib/settings.js";
import { until } from "./lib/time.js";

export const thresholds = { ...usual, carillon_connect_time: ["p(99)<20000"] };
export const options = {
  scenarios: {
    storm: { executor: "per-vu-iterations", exec: "storm", vus: clients(200), iterations: 1, maxDuration: "3m" },
  },
  thresholds,
};

export async function storm() {
  const user = `storm-${exec.vu.idInTest}`;
  const ledger = new Ledger();
  const client = new Client(user).on("numbered", ({ stream, n, total, at }) => {
    ledger.take(stream, n, at);
    ledger.end(stream, total);
  });
  if (!(await client.connect())) return;
  await stream(`user:${user}`, user, 1, 0);
  await until(() => ledger.isComplete(1), 20000);
  ledger.close(1);
  client.close();
}
