// @ts-check
// Covers the App while it loads, and while it goes from one batch to the next: people see the review, and nothing else.
import { make } from "./dom.js";

export class Cover {
  #element = document.querySelector("#vouch-cover") ?? make("div");
  /** Whose review it is. */
  reviewer = this.#element instanceof HTMLElement ? (this.#element.dataset.reviewer ?? "") : "";

  /** @param {string} text */
  show(text) {
    this.#element.id = "vouch-cover";
    this.#element.replaceChildren(make("p", "", text));
    document.body.append(this.#element);
  }

  hide() {
    this.#element.remove();
  }
}
