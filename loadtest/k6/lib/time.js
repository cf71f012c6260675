import { setTimeout } from "k6/timers";

export const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

const TICK = 500;

/**
 * Does something after a time, unless it is cancelled before.
 *
 * k6 1.1 sometimes fires other timers early after a clearTimeout, so nothing is cleared here.
 */
export function after(milliseconds, action) {
  const due = Date.now() + milliseconds;
  let isCancelled = false;
  const tick = () => {
    if (isCancelled) return;
    const left = due - Date.now();
    if (left > 0) setTimeout(tick, Math.min(left, TICK));
    else action();
  };
  setTimeout(tick, Math.min(milliseconds, TICK));
  return { cancel: () => (isCancelled = true) };
}

/** Waits until a condition holds; tells whether it did in time. */
export async function until(condition, milliseconds) {
  const end = Date.now() + milliseconds;
  while (!condition()) {
    if (Date.now() > end) return false;
    await sleep(50);
  }
  return true;
}

/** A moment in the next `milliseconds`, so that clients do not act in step. */
export const jitter = (milliseconds) => Math.random() * milliseconds;
