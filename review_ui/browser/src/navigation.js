// @ts-check
// Which item the App shows, and which it was asked to show.
import { CLICK_MS, OPENING_MS, REOPEN_MS } from "./timing.js";
import { sleep, until } from "./waiting.js";

/** @typedef {import("./types.js").ItemSummary} ItemSummary */

export class Navigation {
  /** The item that the App was asked to open; null: it has come. @type {string | null} */
  #coming = null;
  #askedAt = 0;
  #app;
  #session;
  #pictures;

  /**
   * @param {Pick<import("./app.js").App, "isItemOpen" | "addressedSample" | "openSample" | "loadSample" | "hasPanels" |
   *   "isAnnotating" | "annotate">} app
   * @param {import("./session.js").Session} session
   * @param {Pick<import("./pictures.js").Pictures, "isPainted" | "hasFailed">} pictures
   */
  constructor(app, session, pictures) {
    this.#app = app;
    this.#session = session;
    this.#pictures = pictures;
  }

  /** The item that is open; null: none of the session's. */
  shown() {
    return this.#app.isItemOpen() ? this.#session.ofSample(this.#app.addressedSample()) : null;
  }

  /** @param {ItemSummary} item */
  open(item) {
    this.#coming = item.item;
    this.#askedAt = performance.now();
    this.#app.openSample(item.sample);
  }

  /** Opens an item from wherever the App is. @param {ItemSummary} item */
  show(item) {
    if (this.#app.hasPanels()) this.open(item);
    else this.#app.loadSample(item.sample);
  }

  /** Whether the item that was asked for has yet to come: the one before stays on the screen for a while. */
  isComing() {
    if (this.#coming === null) return false;
    const isThere = this.shown()?.item === this.#coming;
    if (isThere || performance.now() - this.#askedAt > OPENING_MS) this.#coming = null;
    return this.#coming !== null;
  }

  /**
   * Leaves the tab Explore: whoever has looked into it would find the next items there too, where they cannot be
   * answered.
   *
   * @param {ItemSummary | null} item
   */
  leaveExplore(item) {
    if (this.#app.isAnnotating()) return;
    if (item) this.open(item);
    else this.#app.annotate();
  }

  /**
   * Opens an item again while the App may still open the next: it drops what it is asked meanwhile.
   *
   * @param {ItemSummary} item
   * @param {ItemSummary} next
   */
  async backTo(item, next) {
    await this.#opened(next);
    this.open(item);
    await this.#opened(item);
  }

  /** @param {ItemSummary} item */
  async #opened(item) {
    const isShown = () =>
      this.shown()?.item === item.item && (this.#pictures.isPainted(item) || this.#pictures.hasFailed(item));
    await until(isShown, "", REOPEN_MS).catch(() => null);
    await sleep(CLICK_MS);
  }
}
