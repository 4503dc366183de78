// @ts-check
// The line at the bottom: the question, its keys, and the last message.
import { make } from "./dom.js";
import { keyHints } from "./keys.js";
import { CANNOT_BE_SHOWN } from "./pictures.js";

/** @typedef {import("./types.js").ItemSummary} ItemSummary */

export const STYLE = `
  #vouch-line { position: fixed; left: 50%; bottom: 4px; transform: translateX(-50%); z-index: 20000; display: none;
    max-width: 96vw; padding: 4px 14px; border-radius: 6px; background: #14171cee; color: #e8eaed;
    font: 14px/1.35 system-ui, sans-serif; pointer-events: none; text-align: center; }
  #vouch-line b { color: #ffb14a; font-weight: 600; }
  #vouch-line .key { white-space: nowrap; }
  #vouch-line .note { display: block; min-height: 1.35em; }
  #vouch-line .keys, #vouch-line .count { color: #aab1bd; }
  #vouch-line .message { color: #9fe0b5; }
  #vouch-line .wrong { color: #ff9c93; }`;

/**
 * @typedef {object} Shown What the line is about.
 * @property {ItemSummary | null} item
 * @property {string} [hint] What the models say of it, once somebody has asked.
 * @property {boolean} isBroken Whether its image cannot be shown.
 * @property {boolean} isDrawing
 * @property {string[]} classes
 * @property {number} left Items of the session.
 */

export class Line {
  element = make("div");
  message = "";
  #isWrong = false;
  #shown;

  /** @param {() => Shown} shown */
  constructor(shown) {
    this.#shown = shown;
    this.element.id = "vouch-line";
    this.element.setAttribute("role", "status");
  }

  /** @param {string} message @param {boolean} [isWrong] */
  notify(message, isWrong = false) {
    this.message = message;
    this.#isWrong = isWrong;
    this.draw();
  }

  draw() {
    const { item, hint, isBroken, isDrawing, classes, left } = this.#shown();
    /** @type {Node[]} */
    const parts = [];
    if (item) {
      parts.push(make("b", "", item.ask));
      if (hint) parts.push(make("span", "hint", ` ${hint}`));
      parts.push(make("span", "count", `  ${left} left`));
      parts.push(make("br"), keyLine(keyHints(item, classes, isDrawing)));
    }
    const message = isBroken ? CANNOT_BE_SHOWN : this.message;
    const isWrong = isBroken || this.#isWrong;
    // Its space is kept without a message too, so that the picture keeps its height.
    if (item || message) parts.push(make("span", `note ${isWrong ? "wrong" : "message"}`, message));
    this.element.replaceChildren(...parts);
    this.element.style.display = parts.length ? "block" : "none";
    document.documentElement.style.setProperty("--vouch-line", item ? `${this.element.offsetHeight}px` : "0px");
  }
}

/** @param {string[]} keys */
function keyLine(keys) {
  const all = make("span", "keys");
  for (const text of keys) all.append(...(all.firstChild ? [" \u00b7 "] : []), make("span", "key", text));
  return all;
}
