// Packets of Engine.IO 4 and Socket.IO 5, without binary attachments.

export const SEPARATOR = "\x1e";

export const engine = { OPEN: "0", CLOSE: "1", PING: "2", PONG: "3", MESSAGE: "4", UPGRADE: "5", NOOP: "6" };
export const socket = { CONNECT: 0, DISCONNECT: 1, EVENT: 2, ACK: 3, CONNECT_ERROR: 4 };

/** Encodes a Socket.IO packet; `data` is left out where it is undefined. */
export function encode({ type, namespace = "/", id, data }) {
  const place = namespace === "/" ? "" : namespace + ",";
  const body = data === undefined ? "" : JSON.stringify(data);
  return `${type}${place}${id === undefined ? "" : id}${body}`;
}

/** Decodes a Socket.IO packet; one with binary attachments is an error. */
export function decode(text) {
  const type = Number(text[0]);
  if (!(type >= socket.CONNECT && type <= socket.CONNECT_ERROR)) {
    throw new Error(`unexpected packet type ${text[0]}`);
  }
  let at = 1;
  let namespace = "/";
  if (text[at] === "/") {
    const comma = text.indexOf(",", at);
    const end = comma < 0 ? text.length : comma;
    namespace = text.slice(at, end);
    at = comma < 0 ? end : end + 1;
  }
  const begin = at;
  while (at < text.length && text[at] >= "0" && text[at] <= "9") at++;
  const id = at > begin ? Number(text.slice(begin, at)) : undefined;
  const data = at < text.length ? JSON.parse(text.slice(at)) : undefined;
  return { type, namespace, id, data };
}

/** Splits the body of a poll into packets. */
export function split(body) {
  return body === "" ? [] : body.split(SEPARATOR);
}
