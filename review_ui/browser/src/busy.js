// @ts-check
// Runs one thing at a time: what is asked while another is under way is ignored, and errors are shown.

export class Busy {
  isBusy = false;
  #notify;
  #done;

  /**
   * @param {import("./types.js").Notify} notify
   * @param {() => void} done After each, however it ended.
   */
  constructor(notify, done) {
    this.#notify = notify;
    this.#done = done;
  }

  /** @param {() => Promise<void>} work */
  async run(work) {
    if (this.isBusy) return;
    this.#set(true);
    try {
      await work();
    } catch (error) {
      this.#notify(error instanceof Error ? error.message : String(error), true);
    } finally {
      this.#set(false);
      this.#done();
    }
  }

  /** @param {boolean} isBusy */
  #set(isBusy) {
    this.isBusy = isBusy;
    document.documentElement.dataset.vouchBusy = String(isBusy);
  }
}
