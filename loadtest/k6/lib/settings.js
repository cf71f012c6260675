// Where the cluster is and how much to ask of it; every value is a variable of k6 (-e NAME=VALUE).

const list = (text) => text.split(",").map((item) => item.trim().replace(/\/$/, ""));
const number = (name, usual) => Number(__ENV[name] || usual);

export const edges = list(__ENV.EDGES || "http://127.0.0.1:7000,http://127.0.0.1:7001");
export const publisher = list(__ENV.PUBLISHER || "http://127.0.0.1:7100")[0];
export const apiKey = __ENV.API_KEY || "dev-key";
export const jwtSecret = __ENV.JWT_SECRET || "dev-secret";
export const namespace = __ENV.NAMESPACE || "/";
export const path = __ENV.SOCKET_PATH || "/socket.io/";
/** websocket, polling, upgrade (from one to the other), or mixed. */
export const transport = __ENV.TRANSPORT || "mixed";

export const clients = (usual) => number("CLIENTS", usual);
export const seconds = (usual) => number("SECONDS", usual);
/** Events a second; of each client, or of the room, as the scenario says. */
export const rate = (usual) => number("RATE", usual);
/** The slowest 1 % of the deliveries, in milliseconds. */
export const slowest = number("SLOWEST_MS", 2000);
