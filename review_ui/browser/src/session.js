// @ts-check
// The review session as the server sent last: the items to answer, the campaign's classes, the queue, the lease.

/** @typedef {import("./types.js").ItemSummary} ItemSummary */
/** @typedef {import("./types.js").OperatorResult} OperatorResult */

export class Session {
  /** @type {ItemSummary[]} */
  items = [];
  /** @type {string[]} */
  classes = [];
  queue = "";
  /** When the lease of the items ends, as Date.now() counts. */
  leasedUntil = 0;
  /** Item -> what the models say of it, of those that were asked for. @type {Map<string, string>} */
  hints = new Map();
  #newest = 0;

  /**
   * @param {OperatorResult} result
   * @param {number} number Of the request: answers may come in another order than their requests were sent.
   */
  update(result, number) {
    if (result.item && result.hint) this.hints.set(result.item, result.hint);
    if (result.lease_s) this.leasedUntil = Date.now() + result.lease_s * 1000;
    // What an older request saw must not put back what a newer one has answered.
    if (number < this.#newest) return;
    this.#newest = number;
    if (result.items) this.items = result.items;
    if (result.classes) this.classes = result.classes;
    if (result.queue) this.queue = result.queue;
  }

  /** @param {string | null | undefined} id */
  item(id) {
    return this.items.find((one) => one.item === id) ?? null;
  }

  /** @param {string | null} sample */
  ofSample(sample) {
    return this.items.find((one) => one.sample === sample) ?? null;
  }

  /**
   * @param {ItemSummary} item
   * @param {number} by 1: the next one, -1: the one before.
   */
  beside(item, by) {
    return this.items[this.items.findIndex((one) => one.item === item.item) + by] ?? null;
  }

  /**
   * The address of an image.
   *
   * @param {string} key
   */
  source(key) {
    return `/media?filepath=${encodeURIComponent(`/vouch/${this.queue}/${key}`)}`;
  }
}
