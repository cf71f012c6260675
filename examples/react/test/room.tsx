// Renders a component that uses the hook, and tells on stdout what it shows; "cut" on stdin breaks its connection.
import { createInterface } from "node:readline";
import { useEffect, useState } from "react";
import { create } from "react-test-renderer";
import type { Socket } from "socket.io-client";

import { useCarillon, useEvent } from "../useCarillon.js";

const [url, token] = process.argv.slice(2) as [string, string];
const tell = (line: object) => void process.stdout.write(`${JSON.stringify(line)}\n`);
let current: Socket | null = null;
let sessions = 0;

function Room() {
  const carillon = useCarillon(url, {
    token: () => token,
    onSession: async (socket) => {
      sessions += 1;
      await socket.emitWithAck("join-room", "lobby");
      tell({ joined: sessions });
    },
  });
  const [messages, setMessages] = useState<string[]>([]);
  useEvent<{ text: string }>(carillon, "note", ({ text }) => setMessages((before) => [...before, text]));
  const { status, error, socket } = carillon;
  useEffect(() => {
    current = socket;
    tell({ status, error, messages, recovered: socket?.recovered ?? false });
  }, [status, error, messages, socket]);
  return null;
}

const rendered = create(<Room />);
createInterface({ input: process.stdin })
  .on("line", (line) => {
    if (line === "cut") current?.io.engine.close();
    if (line === "unmount") rendered.unmount();
  })
  .on("close", () => process.exit(0));
