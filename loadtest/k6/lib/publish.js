import http from "k6/http";

import { publishFailed, published } from "./metrics.js";
import { apiKey, namespace, publisher } from "./settings.js";
import { sleep } from "./time.js";

const OPTIONS = {
  headers: { Authorization: `Bearer ${apiKey}`, "Content-Type": "application/json" },
  tags: { name: "publish" },
  timeout: "30s",
};
const ATTEMPTS = 10;

/** Publishes a durable event to a room; the id makes a repetition harmless. */
export async function publish(room, event, data, id) {
  const body = JSON.stringify({ namespace, rooms: [room], event, data, id });
  for (let attempt = 1; attempt <= ATTEMPTS; attempt++) {
    try {
      const answer = await http.asyncRequest("POST", `${publisher}/v1/events`, body, OPTIONS);
      if (answer.status === 202) {
        published.add(1);
        return true;
      }
      if (answer.status < 500) {
        console.error(`publishing is answered with ${answer.status}: ${answer.body}`);
        break;
      }
    } catch (error) {
      console.warn(`publishing: ${error}`);
    }
    await sleep(200 * attempt);
  }
  publishFailed.add(1);
  return false;
}

/** Publishes `total` numbered events evenly over `seconds`, one after the other. */
export async function stream(room, name, total, seconds) {
  const run = `${name}-${Date.now()}-${Math.random()}`;
  const begin = Date.now();
  for (let n = 1; n <= total; n++) {
    const due = begin + ((n - 1) * seconds * 1000) / total;
    if (due > Date.now()) await sleep(due - Date.now());
    await publish(room, "numbered", { stream: name, n, total, at: Date.now() }, `${run}-${n}`);
  }
}
