// Holds many stock clients in one process. Commands come as JSON lines on stdin, reports leave as JSON
// lines on stdout; a command with "req" is answered by a report with the same "req".
import { createInterface } from "node:readline";

import { open as openFleet } from "./fleet.mjs";
import { open as openSio } from "./sio.mjs";
import { open as openSse } from "./sse.mjs";
import { open as openWs } from "./ws.mjs";

const openers = { sio: openSio, ws: openWs, sse: openSse, fleet: openFleet };
const clients = new Map();

const write = (line) => process.stdout.write(JSON.stringify(line) + "\n");

function run(command) {
  const { op, id, req } = command;
  const report = (name, fields = {}) => write({ id, report: name, ...fields });
  if (openers[op]) {
    if (clients.has(id)) throw new Error(`client ${id} exists already`);
    clients.set(id, openers[op](command, report));
    return;
  }
  const client = clients.get(id);
  if (!client) throw new Error(`no client ${id}`);
  const action = client[op];
  if (!action) throw new Error(`client ${id} knows no ${op}`);
  const answer = action(command);
  if (req !== undefined) write({ id, req, answer: answer ?? null });
}

createInterface({ input: process.stdin, crlfDelay: Infinity })
  .on("line", (line) => {
    let command;
    try {
      command = JSON.parse(line);
      run(command);
    } catch (error) {
      write({ id: command?.id ?? "", req: command?.req, report: "driver_error", message: String(error) });
    }
  })
  .on("close", () => process.exit(0));

process.on("uncaughtException", (error) => {
  write({ id: "", report: "driver_error", message: error.stack ?? String(error) });
});

write({ id: "", report: "ready", node: process.version });
