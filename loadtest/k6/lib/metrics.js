// What every scenario counts.

import { Counter, Rate, Trend } from "k6/metrics";

import { slowest } from "./settings.js";

export const connectTime = new Trend("carillon_connect_time", true);
export const connectFailed = new Counter("carillon_connect_failed");
export const reconnects = new Counter("carillon_reconnects");
export const recovered = new Rate("carillon_recovered");
/** From a lost transport to the next CONNECT. */
export const silence = new Trend("carillon_silence", true);
export const delivered = new Counter("carillon_delivered");
export const latency = new Trend("carillon_latency", true);
export const lost = new Counter("carillon_lost");
export const duplicated = new Counter("carillon_duplicated");
export const disordered = new Counter("carillon_disordered");
/** Clients that came into a room when its stream had begun. */
export const late = new Counter("carillon_late");
export const published = new Counter("carillon_published");
export const publishFailed = new Counter("carillon_publish_failed");
export const ackFailed = new Counter("carillon_ack_failed");

/** What every scenario promises; a scenario adds its own. */
export const thresholds = {
  carillon_connect_failed: ["count==0"],
  carillon_delivered: ["count>0"],
  carillon_lost: ["count==0"],
  carillon_duplicated: ["count==0"],
  carillon_disordered: ["count==0"],
  carillon_publish_failed: ["count==0"],
  carillon_ack_failed: ["count==0"],
  carillon_latency: [`p(99)<${slowest}`],
};
