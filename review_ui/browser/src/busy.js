// @ts-check
// Runs one thing at a time: what is asked while another is under way is passed over, and errors are told in words.

export class Busy {
  isBusy = false;
  #told;
  #done;

  /**
   * @param {import("./types.js").Say} told
   * @param {() => void} done After each, however it ended.
   */
  constructor(told, done) {
    this.#told = told;
    this.#done = done;
  }

  /** @param {() => Promise<void>} work */
  async run(work) {
    if (this.isBusy) return;
    this.#set(true);
    try {
      await work();
    } catch (error) {
      this.#told(error instanceof Error ? error.message : String(error), true);
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
