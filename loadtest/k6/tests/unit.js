// The parts that need no cluster: k6 run loadtest/k6/tests/unit.js

import { check } from "k6";
import crypto from "k6/crypto";

import { Ledger } from "../lib/ledger.js";
import { SEPARATOR, decode, encode, split } from "../lib/packets.js";
import { token } from "../lib/token.js";

export const options = { vus: 1, iterations: 1, thresholds: { checks: ["rate==1"] } };

const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);

export default function () {
  packets();
  ledger();
  check(token("42"), {
    "a token is signed": (text) => {
      const [head, claims, signature] = text.split(".");
      return signature === crypto.hmac("sha256", "dev-secret", `${head}.${claims}`, "base64rawurl");
    },
  });
}

function packets() {
  for (const [packet, text] of [
    [{ type: 0, namespace: "/", data: { token: "x" } }, '0{"token":"x"}'],
    [{ type: 2, namespace: "/chat", id: 12, data: ["a", 1] }, '2/chat,12["a",1]'],
    [{ type: 3, namespace: "/", id: 0, data: [] }, "30[]"],
    [{ type: 2, namespace: "/", data: ["a,b/", "[1]"] }, '2["a,b/","[1]"]'],
    [{ type: 1, namespace: "/a/b" }, "1/a/b,"],
  ]) {
    const read = decode(text);
    check(read, {
      [`${text} is written`]: () => encode(packet) === text,
      [`${text} is read`]: () => read.type === packet.type && read.namespace === packet.namespace && read.id === packet.id && same(read.data, packet.data),
    });
  }
  check(null, {
    "a binary packet is refused": () => {
      try {
        decode('51-["a",{"_placeholder":true,"num":0}]');
        return false;
      } catch (_) {
        return true;
      }
    },
    "a poll is split": () => same(split(`2${SEPARATOR}42["a"]`), ["2", '42["a"]']) && same(split(""), []),
  });
}

function ledger() {
  const counts = (numbers, total, streams = 1, isLate = false) => {
    const ledger = new Ledger();
    if (isLate) ledger.comesLate();
    for (const n of numbers) {
      ledger.take("s", n);
      ledger.end("s", total);
    }
    return [ledger.isComplete(streams), ledger.close(streams)];
  };
  const whole = (result, delivered) => result[0] && same(result[1], { delivered, lost: 0, duplicated: 0, disordered: 0 });
  check(null, {
    "a whole stream is whole": () => whole(counts([1, 2, 3], 3), 3),
    "a hole is a loss": () => same(counts([1, 3], 3)[1], { delivered: 2, lost: 1, duplicated: 0, disordered: 0 }),
    "a missing end is a loss": () => same(counts([1], 3)[1], { delivered: 1, lost: 2, duplicated: 0, disordered: 0 }),
    "a missing begin is a loss": () => counts([2, 3], 3)[1].lost === 1,
    "what was before a late client is not": () => whole(counts([2, 3], 3, 1, true), 2),
    "what a late client missed since is": () => counts([2, 4], 4, 1, true)[1].lost === 1,
    "a repetition is a duplicate": () => same(counts([1, 1, 2], 2)[1], { delivered: 2, lost: 0, duplicated: 1, disordered: 0 }),
    "a late one is disordered": () => same(counts([1, 3, 2], 3)[1], { delivered: 3, lost: 0, duplicated: 0, disordered: 1 }),
    "a stream that nobody heard is lost": () => same(counts([], 0), [false, { delivered: 0, lost: 1, duplicated: 0, disordered: 0 }]),
    "one stream of two is not all": () => counts([1], 1, 2)[0] === false,
  });
}
