import { delivered, disordered, duplicated, late, latency, lost } from "./metrics.js";

/**
 * What one client has received of numbered streams, each of which begins with 1.
 *
 * A number that comes late is disordered, one that comes twice a duplicate, and one that has not come when its stream
 * ends is lost.
 */
export class Ledger {
  constructor() {
    this.streams = new Map();
    this.isLate = false;
    this.counts = { delivered: 0, lost: 0, duplicated: 0, disordered: 0 };
  }

  /** The client came when the streams had begun: of each, the first number that it hears counts as the begin. */
  comesLate() {
    this.isLate = true;
    late.add(1);
  }

  stream(name, first = 1) {
    let stream = this.streams.get(name);
    if (!stream) {
      stream = { next: this.isLate ? first : 1, missing: new Set(), total: undefined };
      this.streams.set(name, stream);
    }
    return stream;
  }

  /** Notes event `n` of a stream, sent at `sent` by this machine's clock. */
  take(name, n, sent) {
    const stream = this.stream(name, n);
    if (n >= stream.next) {
      for (let skipped = stream.next; skipped < n; skipped++) stream.missing.add(skipped);
      stream.next = n + 1;
    } else if (stream.missing.delete(n)) {
      this.counts.disordered++;
    } else {
      this.counts.duplicated++;
      return;
    }
    this.counts.delivered++;
    if (sent) latency.add(Date.now() - sent);
  }

  /** Tells how many events a stream has in all. */
  end(name, total) {
    this.stream(name).total = total;
  }

  /** Tells whether each of so many streams has ended, and all of their events have come. */
  isComplete(streams) {
    if (this.streams.size < streams) return false;
    for (const stream of this.streams.values()) {
      if (stream.total === undefined || stream.next <= stream.total || stream.missing.size > 0) return false;
    }
    return true;
  }

  /** Counts what is lost and reports everything; a stream of which even the end is missing lost at least that. */
  close(streams) {
    let unheard = Math.max(0, streams - this.streams.size);
    for (const stream of this.streams.values()) {
      unheard += stream.missing.size;
      unheard += stream.total === undefined ? 1 : Math.max(0, stream.total + 1 - stream.next);
    }
    this.counts.lost = unheard;
    delivered.add(this.counts.delivered);
    lost.add(this.counts.lost);
    duplicated.add(this.counts.duplicated);
    disordered.add(this.counts.disordered);
    return this.counts;
  }
}
