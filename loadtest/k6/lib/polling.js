import http from "k6/http";

import { SEPARATOR, engine, split } from "./packets.js";
import { sleep } from "./time.js";

const HEADERS = { "Content-Type": "text/plain;charset=UTF-8" };
const MOST_PACKETS = 16;
let requests = 0;

/** Engine.IO over long-polling: one poll open at a time, and one post. */
export class Polling {
  constructor(url, events) {
    this.url = `${url}?EIO=4&transport=polling`;
    this.events = events;
    this.waiting = [];
    this.isOpen = true;
    this.isPaused = false;
    this.open();
  }

  /** The same request sent again would have the same `t`. */
  address() {
    requests += 1;
    return `${this.url}&t=${__VU}.${requests}`;
  }

  async open() {
    try {
      const answer = await http.asyncRequest("GET", this.address(), null, { tags: { name: "open" }, timeout: "20s" });
      if (answer.status !== 200 || !answer.body.startsWith(engine.OPEN)) {
        return this.end(`opening is answered with ${answer.status}`, retryAfter(answer));
      }
      const session = JSON.parse(answer.body.slice(1));
      this.url += `&sid=${session.sid}`;
      this.patience = session.pingInterval + session.pingTimeout;
      this.events.open(session);
      this.resume();
    } catch (error) {
      this.end(String(error));
    }
  }

  async poll() {
    while (this.isOpen && !this.isPaused) {
      let answer;
      try {
        const options = { tags: { name: "poll" }, timeout: this.patience };
        answer = await http.asyncRequest("GET", this.address(), null, options);
      } catch (error) {
        return this.end(String(error));
      }
      if (answer.status !== 200) return this.end(`a poll is answered with ${answer.status}`);
      for (const packet of split(answer.body)) {
        if (packet !== engine.NOOP && this.isOpen) this.events.packet(packet);
      }
    }
  }

  send(packet) {
    this.waiting.push(packet);
    if (!this.posting) this.posting = this.post();
  }

  async post() {
    await sleep(0);
    while (this.isOpen && this.waiting.length > 0) {
      const body = this.waiting.splice(0, MOST_PACKETS).join(SEPARATOR);
      try {
        const options = { headers: HEADERS, tags: { name: "post" }, timeout: "20s" };
        const answer = await http.asyncRequest("POST", this.address(), body, options);
        if (answer.status !== 200) this.end(`a post is answered with ${answer.status}`);
      } catch (error) {
        this.end(String(error));
      }
    }
    this.posting = undefined;
  }

  /** Stops polling when the open poll has been answered and everything is posted. */
  async pause() {
    this.isPaused = true;
    await this.polls;
    while (this.posting) await this.posting;
  }

  resume() {
    this.isPaused = false;
    this.polls = this.poll();
  }

  close() {
    this.isOpen = false;
  }

  end(reason, pause) {
    if (!this.isOpen) return;
    this.isOpen = false;
    this.events.close(reason, pause);
  }
}

/** Milliseconds that the server asks to wait. */
function retryAfter(answer) {
  const header = answer.headers && (answer.headers["Retry-After"] || answer.headers["retry-after"]);
  return header ? Number(header) * 1000 : undefined;
}
