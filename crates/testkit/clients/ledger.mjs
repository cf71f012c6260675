// What one client got of numbered events. An event's data carries a stream key `s` and a number `n`
// that rises by one in each stream.

const EXAMPLES = 20;
const TROUBLE = 100;

export class Ledger {
  #streams = new Map();
  #lastAt = null;
  #watchedSince = performance.now();
  #watchedSilence = 0;
  #trouble = [];
  longestSilenceMs = 0;
  unnumbered = 0;

  record(data) {
    if (data === null || typeof data !== "object" || !Number.isInteger(data.n)) {
      this.unnumbered += 1;
      return;
    }
    const now = performance.now();
    if (this.#lastAt !== null) this.#silent(now - this.#lastAt, now);
    this.#lastAt = now;

    const { s = "", n } = data;
    let stream = this.#streams.get(s);
    if (!stream) {
      stream = { first: n, last: n - 1, count: 0, missing: new Set(), duplicates: 0, disordered: 0, examples: [] };
      this.#streams.set(s, stream);
    }
    if (n > stream.last) {
      for (let skipped = stream.last + 1; skipped < n; skipped++) stream.missing.add(skipped);
      if (n > stream.last + 1) this.#tell(`${s}: ${n} after ${stream.last}`);
      stream.last = n;
      stream.count += 1;
    } else if (stream.missing.delete(n)) {
      stream.count += 1;
      stream.disordered += 1;
      note(stream, `${n} after ${stream.last}`);
      this.#tell(`${s}: ${n} late, after ${stream.last}`);
    } else if (n < stream.first) {
      stream.count += 1;
      stream.disordered += 1;
      note(stream, `${n} before the first, ${stream.first}`);
      this.#tell(`${s}: ${n} before the first, ${stream.first}`);
    } else {
      stream.duplicates += 1;
      note(stream, `${n} again after ${stream.last}`);
      this.#tell(`${s}: ${n} again, after ${stream.last}`);
    }
  }

  // The silence that a longer watch is broken into belongs to each part in which it lasted.
  #silent(length, now) {
    this.longestSilenceMs = Math.max(this.longestSilenceMs, length);
    this.#watchedSilence = Math.max(this.#watchedSilence, Math.min(length, now - this.#watchedSince));
  }

  #tell(text) {
    if (this.#trouble.length < TROUBLE) this.#trouble.push({ at: Date.now(), text });
  }

  // What has happened so far, and the longest silence since this was asked the last time.
  watch() {
    const now = performance.now();
    if (this.#lastAt !== null) this.#silent(now - this.#lastAt, now);
    const silenceMs = Math.round(this.#watchedSilence);
    this.#watchedSince = now;
    this.#watchedSilence = 0;
    const total = { silenceMs, received: 0, missing: 0, duplicates: 0, disordered: 0 };
    for (const { count, missing, duplicates, disordered } of this.#streams.values()) {
      total.received += count + duplicates;
      total.missing += missing.size;
      total.duplicates += duplicates;
      total.disordered += disordered;
    }
    return total;
  }

  summary() {
    return {
      longestSilenceMs: Math.round(this.longestSilenceMs),
      unnumbered: this.unnumbered,
      trouble: this.#trouble,
      streams: Object.fromEntries(
        [...this.#streams].map(([key, { first, last, count, missing, duplicates, disordered, examples }]) => [
          key,
          { first, last, count, missing: ranges(missing), duplicates, disordered, examples },
        ]),
      ),
    };
  }
}

function note(stream, text) {
  if (stream.examples.length < EXAMPLES) stream.examples.push(text);
}

function ranges(numbers) {
  const all = [];
  for (const n of [...numbers].sort((a, b) => a - b)) {
    const open = all.at(-1);
    if (open && open[1] === n - 1) open[1] = n;
    else all.push([n, n]);
  }
  return all;
}
