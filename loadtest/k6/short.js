// What `make load` runs: a little of everything, in less than a minute.

import { thresholds as killed } from "./kill.js";

export { chat, setup } from "./chat.js";
export { kill } from "./kill.js";
export { member, speaker } from "./room.js";
export { storm } from "./storm.js";
export { unicast } from "./unicast.js";

const scenario = (exec, vus, startTime) => ({ executor: "per-vu-iterations", exec, vus, iterations: 1, startTime, maxDuration: "2m" });

export const options = {
  scenarios: {
    storm: scenario("storm", 30, "0s"),
    chat: scenario("chat", 20, "0s"),
    members: scenario("member", 30, "4s"),
    speaker: scenario("speaker", 1, "14s"),
    unicast: scenario("unicast", 20, "4s"),
    kill: scenario("kill", 20, "4s"),
  },
  thresholds: killed,
};
