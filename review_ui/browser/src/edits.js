// @ts-check
// Waits until what people changed in the App is saved.
import { EDIT_MS, SAVE_MS } from "./timing.js";
import { sleep, until } from "./waiting.js";

export class Edits {
  #last = 0;
  #app;

  /** @param {Pick<import("./app.js").App, "leaveField" | "isSaved">} app */
  constructor(app) {
    this.#app = app;
  }

  /** Something may have been changed just now. */
  made() {
    this.#last = performance.now();
  }

  /** An edit is on its way for a moment before the App shows that it is not saved; then it saves, and shows that. */
  async saved() {
    if (this.#app.leaveField()) this.made();
    await sleep(Math.max(0, this.#last + EDIT_MS - performance.now()));
    await until(() => this.#app.isSaved(), "your edit is not saved yet; wait a moment, and submit again", SAVE_MS);
  }
}
