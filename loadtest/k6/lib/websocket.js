import { WebSocket } from "k6/experimental/websockets";

import { engine } from "./packets.js";
import { after } from "./time.js";

/** Engine.IO over WebSocket; with a sid it takes a session over from polling. */
export class Socket {
  constructor(url, events, sid) {
    this.events = events;
    this.isOpen = true;
    this.patience = 20000;
    this.heard = Date.now();
    this.watch();
    const address = `${url.replace(/^http/, "ws")}?EIO=4&transport=websocket${sid ? `&sid=${sid}` : ""}`;
    this.socket = new WebSocket(address, null, { tags: { name: "websocket" } });
    this.socket.onopen = () => sid && this.send(engine.PING + "probe");
    this.socket.onmessage = (message) => this.receive(message.data);
    this.socket.onerror = (error) => this.end(error.error || "error");
    this.socket.onclose = (close) => this.end(`closed with ${(close && close.code) || "no code"}`);
  }

  receive(packet) {
    if (!this.isOpen) return;
    this.heard = Date.now();
    if (packet[0] === engine.OPEN) {
      const session = JSON.parse(packet.slice(1));
      this.patience = session.pingInterval + session.pingTimeout;
      this.events.open(session);
    } else if (packet === engine.PONG + "probe") {
      this.events.probed();
    } else if (packet !== engine.NOOP) {
      this.events.packet(packet);
    }
  }

  /** A server that is silent for too long is gone. */
  watch() {
    const left = this.heard + this.patience - Date.now();
    if (left <= 0) this.end("nothing came in time");
    else this.timer = after(Math.min(left, this.patience), () => this.watch());
  }

  send(packet) {
    if (this.isOpen) this.socket.send(packet);
  }

  close() {
    this.isOpen = false;
    this.timer.cancel();
    this.socket.close();
  }

  end(reason) {
    if (!this.isOpen) return;
    this.close();
    this.events.close(reason);
  }
}
