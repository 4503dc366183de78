// @ts-check
// What the keys do: shown to a reviewer once, and whenever "?" is pressed. The keys work while it is shown.
import { button, make } from "./dom.js";

const KEYS = /** @type {const} */ ([
  ["Alt+Enter", "right as it is shown; or as you have changed it"],
  ["Alt+N", "not an object, or a second box on one"],
  ["Alt+1 … Alt+9", "another class, by its number at the bottom"],
  ["Alt+B", "the box does not fit (better: move it, then Alt+Enter)"],
  ["Alt+M", "take the mask off, so that the box can be moved"],
  ["Alt+D", "draw a box that is missing"],
  ["Alt+H", "what the models say of it, once you have looked for yourself"],
  ["Alt+S", "skip"],
  ["Alt+Z", "undo the last answer"],
  ["Alt+G", "many crops of one class on a page"],
  ["← →", "look at the items beside"],
  ["?", "this list"],
]);

export const STYLE = `
  #vouch-keys { position: fixed; left: 16px; bottom: calc(var(--vouch-line, 0px) + 16px); z-index: 20500;
    padding: 14px 18px; border: 1px solid #ffb14a; border-radius: 8px; background: #14171cf2; color: #e8eaed;
    font: 14px/1.45 system-ui, sans-serif; }
  #vouch-keys h2 { margin: 0 0 8px; font-size: 16px; font-weight: 600; color: #ffb14a; }
  #vouch-keys dl { display: grid; grid-template-columns: max-content max-content; gap: 2px 14px; margin: 0 0 10px; }
  #vouch-keys dt { font-weight: 600; }
  #vouch-keys dd { margin: 0; color: #c3c9d2; }
  #vouch-keys button { padding: 6px 14px; border: 0; border-radius: 6px; background: #ffb14a; color: #14171c;
    font: inherit; font-weight: 600; cursor: pointer; }`;

export class KeyHelp {
  element = make("aside");
  #place;
  #storage;

  /**
   * @param {string} reviewer
   * @param {Pick<Storage, "getItem" | "setItem">} storage Remembers who has seen it.
   */
  constructor(reviewer, storage) {
    this.#place = `vouch-keys-seen-${reviewer}`;
    this.#storage = storage;
    const list = make("dl");
    for (const [key, what] of KEYS) list.append(make("dt", "", key), make("dd", "", what));
    this.element.id = "vouch-keys";
    this.element.setAttribute("aria-label", "Keys");
    this.element.append(make("h2", "", "One key answers, and the next one comes"), list);
    this.element.append(button("Got it (Esc)", () => this.hide()));
  }

  get isShown() {
    return this.element.isConnected;
  }

  /** Shows it to a reviewer who has not put it away yet. */
  showFirst() {
    if (!this.#storage.getItem(this.#place)) document.body.append(this.element);
  }

  toggle() {
    if (this.isShown) this.hide();
    else document.body.append(this.element);
  }

  hide() {
    this.element.remove();
    this.#storage.setItem(this.#place, "true");
  }
}
