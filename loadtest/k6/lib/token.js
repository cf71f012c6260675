import crypto from "k6/crypto";
import encoding from "k6/encoding";

import { jwtSecret } from "./settings.js";

const part = (text) => encoding.b64encode(text, "rawurl");

/** Makes an HS256 token for a user. */
export function token(user) {
  const signed = `${part('{"alg":"HS256","typ":"JWT"}')}.${part(JSON.stringify({ sub: user }))}`;
  return `${signed}.${crypto.hmac("sha256", jwtSecret, signed, "base64rawurl")}`;
}
