// Many clients from one template, each with its own token and ledger. Members stay connected by the
// client's own means (socket.io-client) or by resuming from the last offset (`/ws`).
import { io } from "socket.io-client";
import WebSocket from "ws";

import { Ledger } from "./ledger.mjs";

const RETRY_MIN_MS = 100;
const RETRY_MAX_MS = 1_000;

export function open({ kind, urls, opts = {}, members }) {
  const make = kind === "sio" ? sioMember : wsMember;
  const fleet = members.map((member, index) => make({ ...member, urls, index, opts }));
  let acks = { asked: 0, answered: 0, failed: 0, errors: {} };
  return {
    status: () => status(fleet, acks),
    ledger: () => fleet.map((member) => ({ name: member.name, ...member.tally, ...member.ledger.summary() })),
    watch: () => watch(fleet),
    emitAll: ({ event, args = [], timeout = 10_000 }) => {
      for (const member of fleet) {
        acks.asked += 1;
        member.emit(event, args, timeout, (error) => {
          if (error) {
            acks.failed += 1;
            count(acks.errors, error.message);
          } else acks.answered += 1;
        });
      }
    },
    resetAcks: () => void (acks = { asked: 0, answered: 0, failed: 0, errors: {} }),
    closeAll: () => {
      for (const member of fleet) member.close();
    },
  };
}

function status(fleet, acks) {
  const total = { members: fleet.length, connected: 0, transports: {}, acks, ...newTally() };
  for (const { connected, transport, tally } of fleet.map((m) => ({ ...m.state(), tally: m.tally }))) {
    if (connected) {
      total.connected += 1;
      count(total.transports, transport);
    }
    for (const key of ["connects", "recovered", "unrecovered", "upgrades"]) total[key] += tally[key];
    for (const [error, times] of Object.entries(tally.errors)) count(total.errors, error, times);
  }
  return total;
}

// The sums over all members, and who heard nothing for the longest time.
function watch(fleet) {
  const total = { silenceMs: 0, quietest: "", received: 0, missing: 0, duplicates: 0, disordered: 0 };
  for (const member of fleet) {
    const one = member.ledger.watch();
    for (const key of ["received", "missing", "duplicates", "disordered"]) total[key] += one[key];
    if (one.silenceMs > total.silenceMs) {
      total.silenceMs = one.silenceMs;
      total.quietest = member.name;
    }
  }
  return total;
}

function newTally() {
  return { connects: 0, recovered: 0, unrecovered: 0, upgrades: 0, errors: {} };
}

function count(table, key, times = 1) {
  table[key] = (table[key] ?? 0) + times;
}

// `joins` are events emitted with an acknowledgement after a connect that recovered nothing;
// the member counts as connected once all were answered.
function sioMember({ name, token, joins = [], urls, index, opts }) {
  const tally = newTally();
  const ledger = new Ledger();
  let joined = false;
  const socket = io(urls[index % urls.length], {
    forceNew: true,
    reconnectionDelay: RETRY_MIN_MS,
    reconnectionDelayMax: RETRY_MAX_MS,
    ...opts,
    auth: { ...opts.auth, token },
  });
  // With several addresses the member walks round them as it retries, as a balancer would place it.
  let turn = index;
  socket.io.on("reconnect_attempt", () => {
    turn += 1;
    socket.io.uri = urls[turn % urls.length];
  });
  socket.io.on("open", () => socket.io.engine.on("upgrade", () => (tally.upgrades += 1)));
  socket.on("connect", () => {
    tally.connects += 1;
    if (socket.recovered) tally.recovered += 1;
    else if (tally.connects > 1) tally.unrecovered += 1;
    joined = socket.recovered || joins.length === 0;
    if (!joined) joinAll(socket.id);
  });
  socket.on("connect_error", (error) => count(tally.errors, `connect_error: ${error.message}`));
  socket.on("disconnect", (reason) => count(tally.errors, `disconnect: ${reason}`));
  socket.onAny((_event, data) => ledger.record(data));

  async function joinAll(sid) {
    try {
      for (const { event, args = [] } of joins) await socket.timeout(10_000).emitWithAck(event, ...args);
      if (socket.id === sid) joined = true;
    } catch (error) {
      count(tally.errors, `join: ${error.message}`);
      if (socket.id === sid) joinAll(sid);
    }
  }

  return {
    name,
    tally,
    ledger,
    state: () => ({ connected: socket.connected && joined, transport: socket.io.engine?.transport?.name }),
    emit: (event, args, timeout, done) => socket.timeout(timeout).emit(event, ...args, done),
    close: () => socket.disconnect(),
  };
}

// `topics` are subscribed after each connect, from the last offset where there is one. That offset stands
// still until every topic has caught up: a connection that ends before is resumed from the same place, and
// what an earlier attempt has read already is counted as `reread`, not as a duplicate.
function wsMember({ name, token, topics = [], urls, index, opts }) {
  const tally = { ...newTally(), reread: 0 };
  const ledger = new Ledger();
  const waiting = new Map();
  const readBy = new Map();
  let turn = index;
  let attempt = 0;
  let socket;
  let base = null;
  let subscribed = new Set();
  let settled = false;
  let closed = false;
  let delay = RETRY_MIN_MS;
  let nextId = 1;

  function connect() {
    const url = new URL(urls[turn % urls.length]);
    if (token) url.searchParams.set("token", token);
    if (base !== null) url.searchParams.set("since", base);
    attempt += 1;
    settled = false;
    subscribed = new Set();
    socket = new WebSocket(url, opts.protocols ?? [], {
      headers: opts.headers ?? {},
      handshakeTimeout: opts.timeout,
    });
    socket.on("message", (data) => receive(JSON.parse(data.toString())));
    socket.on("error", (error) => count(tally.errors, `error: ${error.message}`));
    socket.on("close", (code) => {
      settled = false;
      count(tally.errors, `close: ${code}`);
      for (const done of waiting.values()) done(new Error("connection closed"));
      waiting.clear();
      if (closed) return;
      turn += 1;
      setTimeout(() => closed || connect(), delay * (0.5 + Math.random()));
      delay = Math.min(delay * 2, RETRY_MAX_MS);
    });
  }

  const send = (message) => socket.send(JSON.stringify(message));
  const settleIfSubscribed = () => topics.every((topic) => subscribed.has(topic)) && send({ type: "ping" });

  function receive(message) {
    switch (message.type) {
      case "welcome": {
        tally.connects += 1;
        if (message.recovered) tally.recovered += 1;
        else if (tally.connects > 1) tally.unrecovered += 1;
        delay = RETRY_MIN_MS;
        const since = base === null ? {} : { since: base };
        for (const topic of topics) send({ type: "sub", topic, ...since });
        settleIfSubscribed();
        break;
      }
      case "subscribed":
        subscribed.add(message.topic);
        settleIfSubscribed();
        break;
      case "pong":
        settled = true;
        readBy.clear();
        break;
      case "ack":
        waiting.get(message.id)?.(null);
        waiting.delete(message.id);
        break;
      case "error":
        count(tally.errors, `error: ${message.code}`);
        waiting.get(message.id)?.(new Error(message.code));
        waiting.delete(message.id);
        break;
      case undefined:
        event(message);
        break;
    }
    if (settled && typeof message.offset === "string") base = message.offset;
  }

  function event({ id, payload }) {
    const first = readBy.get(id);
    if (first !== undefined && first !== attempt) {
      tally.reread += 1;
      return;
    }
    if (!settled && id !== undefined) readBy.set(id, attempt);
    ledger.record(payload);
  }

  function emit(event, args, timeout, done) {
    const id = nextId++;
    waiting.set(id, done);
    setTimeout(() => waiting.delete(id) && done(new Error("timeout")), timeout);
    if (socket.readyState === WebSocket.OPEN) send({ type: "emit", event, data: args[0], id });
  }

  connect();
  return {
    name,
    tally,
    ledger,
    state: () => ({ connected: settled, transport: "websocket" }),
    emit,
    close: () => {
      closed = true;
      socket.close();
    },
  };
}
