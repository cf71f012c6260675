// A Socket.IO client as the stock one behaves, as far as a load test needs it: it connects over any transport, upgrades,
// acknowledges, comes back by itself after a lost transport, and asks for what it missed.

import { ackFailed, connectFailed, connectTime, reconnects, recovered, silence } from "./metrics.js";
import { decode, encode, engine, socket } from "./packets.js";
import { Polling } from "./polling.js";
import { edges, namespace, path, transport as usual } from "./settings.js";
import { after, jitter } from "./time.js";
import { token } from "./token.js";
import { Socket } from "./websocket.js";

const TRANSPORTS = ["websocket", "polling", "upgrade"];
const CONNECT_TIMEOUT = 30000;
const ACK_TIMEOUT = 20000;

export class Client {
  constructor(user, options = {}) {
    this.token = token(user);
    this.edge = options.edge === undefined ? __VU : options.edge;
    const kind = options.transport || usual;
    this.kind = kind === "mixed" ? TRANSPORTS[__VU % TRANSPORTS.length] : kind;
    this.handlers = new Map();
    this.acks = new Map();
    this.nextAck = 0;
    this.attempts = 0;
    this.isClosed = false;
    this.isConnected = false;
  }

  on(event, handler) {
    this.handlers.set(event, handler);
    return this;
  }

  /** Connects; a client that cannot is counted, and false is returned. */
  connect() {
    this.began = Date.now();
    return new Promise((resolve) => {
      this.connecting = resolve;
      this.deadline = after(CONNECT_TIMEOUT, () => this.fail("no CONNECT in time"));
      this.open();
    });
  }

  open() {
    if (this.isClosed) return;
    const edge = edges[this.edge % edges.length];
    const events = {
      open: (session) => this.opened(session),
      packet: (packet) => this.receive(packet),
      close: (reason, pause) => this.ended(reason, pause),
      probed: () => this.upgrade(),
    };
    this.url = edge + path;
    const first = this.kind === "websocket" ? Socket : Polling;
    this.transport = new first(this.url, events);
    this.events = events;
  }

  opened(session) {
    const auth = { token: this.token };
    if (this.pid) Object.assign(auth, { pid: this.pid, offset: this.offset });
    this.sendPacket({ type: socket.CONNECT, data: auth });
    if (this.kind === "upgrade") {
      // Another edge than the one that polls: any edge takes any request.
      const other = edges[(this.edge + 1) % edges.length] + path;
      const events = { ...this.events, open: () => {}, close: () => (this.probe = undefined) };
      this.probe = new Socket(other, events, session.sid);
    }
  }

  async upgrade() {
    const probe = this.probe;
    const polling = this.transport;
    if (!probe || !(polling instanceof Polling)) return;
    await polling.pause();
    if (!polling.isOpen) return;
    if (!probe.isOpen) return polling.resume();
    this.transport = probe;
    this.probe = undefined;
    probe.events.close = this.events.close;
    polling.close();
    probe.send(engine.UPGRADE);
    for (const packet of polling.waiting.splice(0)) probe.send(packet);
  }

  receive(packet) {
    switch (packet[0]) {
      case engine.PING:
        return this.transport.send(engine.PONG);
      case engine.CLOSE:
        return this.transport.end("the server closes");
      case engine.MESSAGE:
        return this.message(decode(packet.slice(1)));
    }
  }

  message({ type, id, data }) {
    switch (type) {
      case socket.CONNECT:
        return this.connected(data);
      case socket.CONNECT_ERROR:
        return this.fail(data.message);
      case socket.DISCONNECT:
        return this.ended("the server disconnects");
      case socket.EVENT:
        return this.event(data);
      case socket.ACK: {
        const ack = this.acks.get(id);
        this.acks.delete(id);
        return ack && ack(data);
      }
    }
  }

  connected({ sid, pid }) {
    const returns = this.pid !== undefined;
    if (returns) {
      recovered.add(this.pid === pid);
      silence.add(Date.now() - this.lostAt);
    } else {
      connectTime.add(Date.now() - this.began);
    }
    this.isRecovered = returns && this.pid === pid;
    this.sid = sid;
    this.pid = pid;
    this.attempts = 0;
    this.isConnected = true;
    this.deadline.cancel();
    if (this.connecting) this.connecting(true);
    this.connecting = undefined;
    if (returns && !this.isRecovered && this.onLost) this.onLost();
  }

  event(args) {
    const last = args[args.length - 1];
    if (this.pid && typeof last === "string") this.offset = last;
    const handler = this.handlers.get(args[0]);
    if (handler) handler(...args.slice(1));
  }

  /** Emits an event and waits for its acknowledgement; undefined if none came. */
  ask(event, data) {
    const id = this.nextAck++;
    return new Promise((resolve) => {
      const timer = after(ACK_TIMEOUT, () => {
        this.acks.delete(id);
        console.warn(`client ${__VU} (${this.kind}): no acknowledgement of ${event}`);
        ackFailed.add(1);
        resolve(undefined);
      });
      this.acks.set(id, (args) => {
        timer.cancel();
        resolve(args[0]);
      });
      this.sendPacket({ type: socket.EVENT, id, data: [event, data] });
    });
  }

  sendPacket(packet) {
    this.transport.send(engine.MESSAGE + encode({ namespace, ...packet }));
  }

  /** The transport is gone: another edge is tried soon, as a client behind a round-robin would. */
  ended(reason, pause) {
    if (this.isClosed) return;
    if (this.isConnected) {
      this.lostAt = Date.now();
      this.isConnected = false;
      reconnects.add(1);
    }
    this.probe && this.probe.close();
    this.probe = undefined;
    this.transport.close();
    this.edge += 1;
    this.attempts += 1;
    const wait = pause || Math.min(5000, 200 * 2 ** Math.min(this.attempts, 5));
    after(wait / 2 + jitter(wait / 2), () => this.open());
    if (this.attempts > 20) this.fail(reason);
  }

  fail(reason) {
    if (this.isClosed) return;
    console.error(`client ${__VU} (${this.kind}): ${reason}`);
    connectFailed.add(1);
    const connecting = this.connecting;
    this.close();
    if (connecting) connecting(false);
  }

  /** Breaks the transport without a word, as a lost network does. */
  drop() {
    const transport = this.transport;
    transport.close();
    this.ended("dropped");
  }

  close() {
    if (this.isClosed) return;
    if (this.isConnected && this.transport instanceof Socket) this.sendPacket({ type: socket.DISCONNECT });
    this.isClosed = true;
    this.isConnected = false;
    this.deadline.cancel();
    this.connecting = undefined;
    if (this.transport instanceof Polling && this.transport.isOpen) this.transport.send(engine.CLOSE);
    else if (this.transport) this.transport.close();
    if (this.probe) this.probe.close();
  }
}
