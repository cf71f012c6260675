// A React hook over the stock socket.io-client: one connection that comes back by itself and misses nothing.
import { useCallback, useEffect, useRef, useState } from "react";
import { io, type Socket } from "socket.io-client";

export type Status = "connecting" | "connected" | "reconnecting" | "refused" | "disconnected";

export interface Options {
  /** Returns a token that is good now; it is asked at each connection and before a token expires. */
  token: () => string | Promise<string>;
  /** Called at each new session: joins rooms, loads what is there. Not called where a session was recovered. */
  onSession?: (socket: Socket) => void | Promise<void>;
}

export interface Carillon {
  status: Status;
  /** Why the server refused the connection, or an event. */
  error: string | null;
  /** Emits an event and returns what it is acknowledged with. */
  request: <Answer>(event: string, ...args: unknown[]) => Promise<Answer>;
  /** For useEvent. */
  socket: Socket | null;
}

/** How long an acknowledgement may take. */
const PATIENCE = 10_000;

/** Connects to a namespace as long as the component is there. */
export function useCarillon(url: string, options: Options): Carillon {
  const [socket, setSocket] = useState<Socket | null>(null);
  const [status, setStatus] = useState<Status>("connecting");
  const [error, setError] = useState<string | null>(null);
  // The connection outlives renders; it always calls the newest functions.
  const latest = useRef(options);
  latest.current = options;

  useEffect(() => {
    const fail = (reason: unknown) => setError(reason instanceof Error ? reason.message : String(reason));
    const token = async () => latest.current.token();
    const next = io(url, {
      autoConnect: false,
      // The client adds its session and its offset to this by itself, so that it is recovered.
      auth: (send) => void token().then((token) => send({ token }), (reason) => (fail(reason), send({}))),
    });
    next.on("connect", () => {
      setStatus("connected");
      setError(null);
      // A session that was recovered has its rooms, and what it missed comes by itself.
      if (!next.recovered) void Promise.resolve(latest.current.onSession?.(next)).catch(fail);
    });
    // Without `active` the client does not try again by itself.
    next.on("disconnect", () => setStatus(next.active ? "reconnecting" : "disconnected"));
    next.on("connect_error", (refusal) => {
      setStatus(next.active ? "reconnecting" : "refused");
      setError(refusal.message);
    });
    next.on("error", (refusal: { message?: string }) => setError(refusal.message ?? "refused"));
    next.on("auth:expiring", () => {
      const refresh = async () => next.emit("auth:refresh", { token: await token() });
      refresh().catch(fail);
    });
    setStatus("connecting");
    setSocket(next);
    next.connect();
    return () => {
      next.off();
      next.disconnect();
    };
  }, [url]);

  const request = useCallback(
    async <Answer>(event: string, ...args: unknown[]): Promise<Answer> => {
      if (!socket) throw new Error("not connected");
      const answer = await socket.timeout(PATIENCE).emitWithAck(event, ...args);
      if (answer?.error) throw new Error(answer.error.message);
      return answer as Answer;
    },
    [socket],
  );
  return { status, error, request, socket };
}

/** Calls with the data of each event of this name. */
export function useEvent<Data>(carillon: Carillon, event: string, handle: (data: Data) => void): void {
  const latest = useRef(handle);
  latest.current = handle;
  const { socket } = carillon;
  useEffect(() => {
    // A durable event ends in its offset, which is the client's own business.
    const listener = (data: Data) => latest.current(data);
    socket?.on(event, listener);
    return () => void socket?.off(event, listener);
  }, [socket, event]);
}
