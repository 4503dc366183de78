// @ts-check
// Which item is on the screen, since when, whether it can have been seen, and how long somebody has looked at it.
import { LABEL_MS, SEEN_MS, SLOW_MS } from "./timing.js";

/** @typedef {import("./types.js").ItemSummary} ItemSummary */

export class Screen {
  /** Id of the item; null: none. @type {string | null} */
  item = null;
  /** When its picture, and its label with it, was on the screen; 0: not yet. */
  painted = 0;
  #isReady = false;
  #opened = 0;
  #imagePainted = 0;
  #since = 0;
  #spent = 0;
  #app;
  #pictures;
  #now;

  /**
   * @param {Pick<import("./app.js").App, "isListed" | "isLabelOpen">} app
   * @param {Pick<import("./pictures.js").Pictures, "isPainted" | "isBroken">} pictures
   * @param {() => number} [now] Milliseconds.
   */
  constructor(app, pictures, now = () => performance.now()) {
    this.#app = app;
    this.#pictures = pictures;
    this.#now = now;
  }

  /**
   * Looks at the item that the App shows.
   *
   * @param {ItemSummary | null} item
   * @returns {boolean} Whether it is another one than before.
   */
  look(item) {
    const id = item?.item ?? null;
    if (id === this.item) {
      if (item) this.#lookAtPicture(item);
      return false;
    }
    this.item = id;
    this.#isReady = false;
    this.#imagePainted = this.painted = this.#spent = 0;
    this.#opened = this.#since = this.#now();
    document.documentElement.dataset.vouchItem = id ?? "";
    document.documentElement.dataset.vouchReady = "";
    return true;
  }

  /** The time of an item starts when it can be seen. @param {ItemSummary} item */
  #lookAtPicture(item) {
    const now = this.#now();
    if (!this.painted && this.#pictures.isPainted(item)) {
      this.#imagePainted ||= now;
      const isListed = !item.label || this.#app.isListed(item.label) || this.#app.isLabelOpen();
      if (isListed || now - this.#imagePainted >= LABEL_MS) {
        this.painted = this.#since = now;
        this.#spent = 0;
      }
    }
    if (!this.#isReady && this.painted && now - this.painted >= SEEN_MS) {
      this.#isReady = true;
      document.documentElement.dataset.vouchReady = item.item;
    }
  }

  /** Milliseconds until another look finds more though nothing changes. */
  next() {
    const nothing = this.item === null || this.#isReady || !this.#imagePainted;
    if (nothing) return Number.POSITIVE_INFINITY;
    const time = this.painted ? this.painted + SEEN_MS : this.#imagePainted + LABEL_MS;
    return Math.max(0, time - this.#now());
  }

  /** Whether a look has found that it was painted for long enough to be seen. @param {ItemSummary} item */
  isReady(item) {
    return this.item === item.item && this.#isReady;
  }

  /**
   * Whether a key comes before anybody can have seen the item, as when it is pressed twice: it means the one before.
   *
   * @param {ItemSummary} item
   */
  isTooEarly(item) {
    if (this.isReady(item) || this.#pictures.isBroken(item)) return false;
    return this.item !== item.item || this.painted > 0 || this.#now() - this.#opened < SLOW_MS;
  }

  /** Seconds that somebody has looked at it. */
  seconds() {
    return (this.#spent + (document.hidden ? 0 : this.#now() - this.#since)) / 1000;
  }

  /** The page was hidden, or is shown again. */
  visibilityChanged() {
    if (document.hidden) this.#spent += this.#now() - this.#since;
    else this.#since = this.#now();
  }
}
