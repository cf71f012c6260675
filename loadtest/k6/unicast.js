// Steady unicast: each client gets a stream of its own, at its own pace.
//
// CLIENTS (50), SECONDS (20), RATE of each client a second (2), TRANSPORT (mixed)

import exec from "k6/execution";

import { Client } from "./lib/client.js";
import { Ledger } from "./lib/ledger.js";
import { thresholds as usual } from "./lib/metrics.js";
import { stream } from "./lib/publish.js";
import { clients, rate, seconds } from "./lib/settings.js";
import { jitter, sleep, until } from "./lib/time.js";

export const thresholds = usual;
export const options = {
  scenarios: {
    unicast: { executor: "per-vu-iterations", exec: "unicast", vus: clients(50), iterations: 1, maxDuration: `${seconds(20) + 90}s` },
  },
  thresholds,
};

export async function unicast() {
  const user = `unicast-${exec.vu.idInTest}`;
  const ledger = new Ledger();
  const client = new Client(user).on("numbered", ({ stream, n, total, at }) => {
    ledger.take(stream, n, at);
    ledger.end(stream, total);
  });
  await sleep(jitter(2000));
  if (!(await client.connect())) return;
  await stream(`user:${user}`, user, Math.max(1, Math.round(rate(2) * seconds(20))), seconds(20));
  await until(() => ledger.isComplete(1), 20000);
  ledger.close(1);
  client.close();
}
