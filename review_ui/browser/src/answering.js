// @ts-check
// Takes items, answers them and goes on to the next, takes answers back.
import { CANNOT_BE_SHOWN } from "./pictures.js";
import { LOAD_MS } from "./timing.js";
import { sleep } from "./waiting.js";

/** @typedef {import("./types.js").ItemSummary} ItemSummary */

/**
 * @typedef {object} Parts
 * @property {Pick<import("./app.js").App, "closeSample" | "loadSample">} app
 * @property {import("./types.js").Call} call
 * @property {import("./session.js").Session} session
 * @property {import("./busy.js").Busy} busy
 * @property {Pick<import("./navigation.js").Navigation,
 *   "shown" | "open" | "isComing" | "leaveExplore" | "backTo">} navigation
 * @property {Pick<import("./screen.js").Screen, "isReady" | "isTooEarly" | "seconds">} screen
 * @property {Pick<import("./pictures.js").Pictures, "look" | "hasFailed">} pictures
 * @property {Pick<import("./edits.js").Edits, "saved">} edits
 * @property {Pick<import("./labels.js").Labels, "reselect" | "isNewBoxSelected" | "setClass">} labels
 * @property {Pick<import("./pause.js").Pause, "show">} pause
 * @property {(item: ItemSummary) => void} show Shows an item in the place of the page between batches.
 * @property {import("./types.js").Notify} notify
 */

export class Answering {
  #parts;

  /** @param {Parts} parts */
  constructor(parts) {
    this.#parts = parts;
  }

  /** A key that comes before anybody can have seen the item means the one before, and is ignored. */
  #isTooEarly() {
    const { navigation, screen } = this.#parts;
    const item = navigation.shown();
    return navigation.isComing() || (item !== null && screen.isTooEarly(item));
  }

  /**
   * @param {string} name The operator.
   * @param {import("./types.js").Parameters} [parameters]
   */
  answer(name, parameters = {}) {
    const { app, call, session, busy, navigation, screen, edits, labels, pause, notify } = this.#parts;
    return busy.run(async () => {
      if (this.#isTooEarly()) return;
      const item = navigation.shown();
      if (!item) throw new Error("open an item first: Alt+T takes a batch");
      if (name !== "skip" && !screen.isReady(item)) await this.#throwUnseen(item);
      await edits.saved();
      const seconds = screen.seconds();
      const next = session.beside(item, 1) ?? session.beside(item, -1);
      notify("");
      // The next item opens while this one is submitted: what counts is saved, and does not change any more.
      if (next) navigation.open(next);
      try {
        await call(name, { item: item.item, seconds, ...parameters });
      } catch (error) {
        if (next && session.item(item.item)) {
          await navigation.backTo(item, next);
          labels.reselect();
        }
        throw error;
      }
      if (next) return;
      // Before the item is closed, as the App's grid lies behind it.
      await pause.show("This batch is done").finally(() => app.closeSample());
    });
  }

  /** Asks what the models say of the item. Nothing shows it before: whoever reads it first follows it. */
  hint() {
    const { call, busy, navigation } = this.#parts;
    return busy.run(async () => {
      if (this.#isTooEarly()) return;
      const item = navigation.shown();
      if (item) await call("hint", { item: item.item });
    });
  }

  take() {
    const { call, session, busy, navigation, edits, pause, show, notify } = this.#parts;
    return busy.run(async () => {
      await edits.saved();
      const { taken } = await call("take_batch");
      const [first] = session.items;
      if (!first) return pause.show("Nothing can be taken now");
      notify(taken ? `${taken} items taken` : "this batch is not done yet");
      // Whoever asks for more in the middle of a batch stays where he is.
      if (!navigation.shown()) show(first);
    });
  }

  undo() {
    const { call, session, busy, edits, show, notify } = this.#parts;
    return busy.run(async () => {
      if (this.#isTooEarly()) return;
      await edits.saved();
      const result = await call("undo");
      const item = session.item(result.item);
      notify(`Taken back: ${result.answer}`);
      if (item) show(item);
    });
  }

  giveBack() {
    const { app, call, busy, edits, pause } = this.#parts;
    return busy.run(async () => {
      await edits.saved();
      const { returned } = await call("give_back");
      await pause.show(`${returned} items given back`).finally(() => app.closeSample());
    });
  }

  /** Opens the item beside the one that is shown. @param {number} by */
  step(by) {
    const { session, busy, navigation, edits } = this.#parts;
    return busy.run(async () => {
      const item = navigation.shown();
      if (navigation.isComing() || !item) return;
      await edits.saved();
      const next = session.beside(item, by);
      if (next) navigation.open(next);
    });
  }

  /** Sets the class of the label in question, or of a box that was drawn. @param {number} place */
  pickClass(place) {
    const { session, busy, navigation, labels } = this.#parts;
    const name = session.classes[place];
    const item = navigation.shown();
    if (!name || !item) return;
    if (item.kind === "label" && !labels.isNewBoxSelected(item)) this.answer("wrong_class", { class_name: name });
    else busy.run(() => labels.setClass(name));
  }

  /**
   * Throws why an item that is not painted cannot be answered. The App does not ask again for an image that did not come.
   *
   * @param {ItemSummary} item
   */
  async #throwUnseen(item) {
    const { app, navigation, pictures } = this.#parts;
    navigation.leaveExplore(item);
    const state = await Promise.race([pictures.look(item).done, sleep(LOAD_MS)]);
    if (state === "broken") throw new Error(CANNOT_BE_SHOWN);
    if (state === "shown" && pictures.hasFailed(item)) app.loadSample(item.sample);
    throw new Error("the image has not come yet: wait a moment, or skip it (Alt+S)");
  }
}
