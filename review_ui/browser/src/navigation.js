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
  #now;

  /**
   * @param {Pick<import("./app.js").App, "isItemOpen" | "addressedSample" | "openSample" | "loadSample" | "hasPanels" |
   *   "isAnnotating" | "annotate">} app
   * @param {import("./session.js").Session} session
   * @param {Pick<import("./pictures.js").Pictures, "isPainted" | "hasFailed">} pictures
   * @param {() => number} [now] Milliseconds.
   */
  constructor(app, session, pictures, now = () => performance.now()) {
    this.#app = app;
    this.#session = session;
    this.#pictures = pictures;
    this.#now = now;
  }

  /** The item that is open; null: none of the session's. */
  shown() {
    return this.#app.isItemOpen() ? this.#session.ofSample(this.#app.addressedSample()) : null;
  }

  /** @param {ItemSummary} item */
  open(item) {
    this.#coming = item.item;
    this.#askedAt = this.#now();
    this.#app.openSample(item.sample);
  }

  /** Opens an item from wherever the App is. @param {ItemSummary} item */
  show(item) {
    if (this.#app.hasPanels()) this.open(item);
    else this.#app.loadSample(item.sample);
  }

  /** Whether the item that was asked for has yet to come: the one before stays on the screen for a while. */
  isComing() {
    this.look();
    return this.#coming !== null;
  }

  /**
   * Looks whether the item that was asked for has come. Where the App's page has failed none ever does, until the page is
   * loaded again.
   *
   * @returns {number} Milliseconds until another look finds more though nothing changes.
   */
  look() {
    if (this.#coming === null) return Number.POSITIVE_INFINITY;
    const left = this.#askedAt + OPENING_MS - this.#now();
    const isThere = this.shown()?.item === this.#coming;
    if (!isThere && left > 0) return left;
    const item = this.#session.item(this.#coming);
    this.#coming = null;
    if (item && !this.#app.isItemOpen()) this.#app.loadSample(item.sample);
    return Number.POSITIVE_INFINITY;
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
