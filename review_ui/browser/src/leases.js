// @ts-check
// Keeps the leases of the session's items while somebody works.
import { IDLE_MS } from "./timing.js";

export class Leases {
  #lastSign = Date.now();
  #call;
  #session;
  #notify;

  /**
   * @param {import("./types.js").Call} call
   * @param {import("./session.js").Session} session
   * @param {import("./types.js").Notify} notify
   */
  constructor(call, session, notify) {
    this.#call = call;
    this.#session = session;
    this.#notify = notify;
  }

  /** A key or a pointer: somebody works. */
  sign() {
    this.#lastSign = Date.now();
  }

  /** Renews the leases, to be called now and then. */
  async renew() {
    if (!this.#session.items.length) return;
    if (Date.now() - this.#lastSign < IDLE_MS) {
      try {
        const { lost } = await this.#call("renew");
        if (lost) this.#notify(`${lost} items were given to somebody else, as your lease had run out`, true);
      } catch (error) {
        this.#notify(error instanceof Error ? error.message : String(error), true);
      }
    } else if (Date.now() > this.#session.leasedUntil) {
      this.#notify(
        "Your lease ran out: others may take these items. What you submit counts as long as nobody has.",
        true,
      );
    }
  }
}
