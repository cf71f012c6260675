// A backend in TypeScript: it answers what clients emit, publishes, and reads presence.
//
//   npm ci && npm run build && NATS_URL=nats://127.0.0.1:4222 npm start
import { jetstream } from "@nats-io/jetstream";
import { connect, type Msg } from "@nats-io/transport-node";

interface Up<Data> {
  event: string;
  data: Data;
  user: { id: string | null; claims: Record<string, unknown> };
  sid: string;
  namespace: string;
  ts: number;
}

interface Presence {
  count: number;
  members: { userId: string | null; sid: string }[];
}

const nats = await connect({ servers: process.env.NATS_URL ?? "nats://127.0.0.1:4222" });
const streams = jetstream(nats);

/** Publishes a durable event; it is safe to do again with the same id. */
async function publish(room: string, event: string, data: unknown, id: string): Promise<void> {
  const body = JSON.stringify({ event, data, id });
  await streams.publish(`rt.pub.main.${token(room)}`, body);
}

/** Returns who is in a room. */
async function presence(room: string): Promise<Presence> {
  const reply = await nats.request(`rt.presence.main.${token(room)}`, "", { timeout: 2000 });
  return reply.json<Presence>();
}

/** Writes a room, a user or an event as one token of a subject. */
function token(name: string): string {
  const encoded = (byte: number) => `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  const bytes = Array.from(new TextEncoder().encode(name));
  const special = (byte: number) => byte <= 0x20 || byte >= 0x7f || ".*>%".includes(String.fromCharCode(byte));
  return bytes.map((byte) => (special(byte) ? encoded(byte) : String.fromCharCode(byte))).join("");
}

/** Answers an event; of several processes in the group one gets it, and the reply is the client's acknowledgement. */
function answer<Data>(event: string, handle: (up: Up<Data>) => Promise<unknown>): void {
  const respond = async (message: Msg) => {
    try {
      message.respond(JSON.stringify(await handle(message.json<Up<Data>>())));
    } catch (error) {
      console.error(event, error);
      message.respond(JSON.stringify({ error: { code: "failed", message: "try again" } }));
    }
  };
  nats.subscribe(`rt.up.main.${token(event)}`, {
    queue: "notifications",
    callback: (error, message) => {
      if (error) console.error(event, error);
      else void respond(message);
    },
  });
}

answer<{ notificationId: string }>("notification:mark_read", async ({ data, user }) => {
  // Every device of the user is told, also one that is away for a moment.
  await publish(`user:${user.id}`, "notification:read", data, `read-${user.id}-${data.notificationId}`);
  return { success: true, notificationId: data.notificationId };
});

answer<{ room: string }>("who", async ({ data }) => {
  const { count, members } = await presence(data.room);
  return { count, users: members.map((member) => member.userId) };
});

await nats.flush();
console.log("ready");
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => void nats.drain());
await nats.closed();
