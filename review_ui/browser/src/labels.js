// @ts-check
// Selects, draws, names and frees boxes in the App's own forms.
import { CLICK_MS } from "./timing.js";
import { frame, until } from "./waiting.js";

/** @typedef {import("./types.js").ItemSummary} ItemSummary */

export class Labels {
  isDrawing = false;
  #isSelected = false;
  #clickedAt = 0;
  /** Labels that were drawn, and that have got a class. @type {Set<string>} */
  #named = new Set();
  #app;
  #edits;
  #notify;

  /**
   * @param {import("./app.js").App} app
   * @param {Pick<import("./edits.js").Edits, "made">} edits
   * @param {import("./types.js").Notify} notify
   */
  constructor(app, edits, notify) {
    this.#app = app;
    this.#edits = edits;
    this.#notify = notify;
  }

  /** Another item is on the screen. */
  itemChanged() {
    this.isDrawing = false;
    this.reselect();
  }

  /** The label in question is to be selected again. */
  reselect() {
    this.#isSelected = false;
    this.#clickedAt = 0;
  }

  /**
   * Selects the label in question: the App marks none out; the one that is selected stands out, and can be changed.
   *
   * @param {ItemSummary} item Its picture is painted.
   * @returns {number} Milliseconds until it must be looked at again; Infinity: nothing is left to do.
   */
  selectInQuestion(item) {
    if (!item.label || this.#isSelected) return Number.POSITIVE_INFINITY;
    if (this.#app.selectedLabel() === item.label) this.#isSelected = true;
    if (this.#isSelected || this.#app.isLabelOpen()) return Number.POSITIVE_INFINITY;
    // While the App still loads, a click may be lost.
    const left = this.#clickedAt + CLICK_MS - performance.now();
    if (this.#clickedAt && left > 0) return left;
    this.#clickedAt = performance.now();
    this.#app.clickLabel(item.label);
    return CLICK_MS;
  }

  /**
   * The class that a label which has just been drawn is to get: the one that is looked for; null: the App has given it
   * the class of the one before.
   *
   * @param {ItemSummary} item
   */
  classOfNewBox(item) {
    const id = this.#app.selectedLabel();
    if (!id || id === item.label || this.#named.has(id)) return null;
    this.#named.add(id);
    if (item.kind === "label" || this.#app.selectedClass() === item.class_name) return null;
    return item.class_name;
  }

  /** @param {ItemSummary} item */
  isNewBoxSelected(item) {
    const id = this.#app.selectedLabel();
    return id !== null && id !== item.label;
  }

  #classList() {
    const list = this.#app.classList();
    if (!list) throw new Error("select a box first: click it");
    list.focus();
    return list;
  }

  /** For campaigns of more classes than there are numbers: type a part of the name, Enter takes it. */
  async typeClass() {
    const list = this.#classList();
    list.click();
    list.select();
  }

  /** Gives the selected box a class. @param {string} name */
  async setClass(name) {
    const list = this.#classList();
    list.click();
    const trouble = `choose ${name} in the list on the right`;
    this.#app.pressOption(await until(() => this.#app.classOption(name), trouble));
    await until(() => list.value === name, trouble);
    this.#edits.made();
    await frame();
    this.#app.leaveField();
  }

  async drawBox() {
    if (this.#app.isLabelOpen()) {
      this.#app.closeLabel();
      await until(() => !this.#app.isLabelOpen(), "close the label on the right first");
    }
    (await until(() => this.#app.drawButton(), "open an item first")).click();
    this.isDrawing = true;
  }

  /** Takes the mask off, as a box with one cannot be moved. @param {ItemSummary | null} item */
  async unlockBox(item) {
    if (item?.label && this.#app.selectedLabel() === null) this.#app.clickLabel(item.label);
    (await until(() => this.#app.labelMenu(), "select a box first: click it")).click();
    (await until(() => this.#app.removeMask(), "this box has no mask: move it as it is")).click();
    this.#edits.made();
    this.#notify("The mask is removed: move the box, or Ctrl+Z brings the mask back.");
  }
}
