// What one client got of numbered events. An event's data carries a stream key `s` and a number `n`
// that rises by one in each stream.

const EXAMPLES = 20;

export class Ledger {
  #streams = new Map();
  #lastAt = null;
  longestSilenceMs = 0;
  unnumbered = 0;

  record(data) {
    if (data === null || typeof data !== "object" || !Number.isInteger(data.n)) {
      this.unnumbered += 1;
      return;
    }
    const now = performance.now();
    if (this.#lastAt !== null) this.longestSilenceMs = Math.max(this.longestSilenceMs, now - this.#lastAt);
    this.#lastAt = now;

    const { s = "", n } = data;
    let stream = this.#streams.get(s);
    if (!stream) {
      stream = { first: n, last: n - 1, count: 0, missing: new Set(), duplicates: 0, disordered: 0, examples: [] };
      this.#streams.set(s, stream);
    }
    if (n > stream.last) {
      for (let skipped = stream.last + 1; skipped < n; skipped++) stream.missing.add(skipped);
      stream.last = n;
      stream.count += 1;
    } else if (stream.missing.delete(n)) {
      stream.count += 1;
      stream.disordered += 1;
      note(stream, `${n} after ${stream.last}`);
    } else if (n < stream.first) {
      stream.count += 1;
      stream.disordered += 1;
      note(stream, `${n} before the first, ${stream.first}`);
    } else {
      stream.duplicates += 1;
      note(stream, `${n} again after ${stream.last}`);
    }
  }

  summary() {
    return {
      longestSilenceMs: Math.round(this.longestSilenceMs),
      unnumbered: this.unnumbered,
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
