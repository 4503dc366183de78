// @ts-check
// A tile of the crop grid: the image itself, moved and scaled within it, so nothing is cut on the server.
import { make } from "./dom.js";

/** @typedef {import("./types.js").ItemSummary} ItemSummary */

export const SIZE = 168; // CSS pixels
const CONTEXT = 0.35; // of the box's longer side around it, on each side
const BORDER = 2; // CSS pixels of the frame around the box

/**
 * What a tile shows of an image: a square around the box, in the image's pixels.
 *
 * @param {[number, number, number, number]} box
 * @param {number} [size]
 */
export function cropOf([x0, y0, x1, y1], size = SIZE) {
  const side = Math.max(x1 - x0, y1 - y0) * (1 + 2 * CONTEXT);
  return { scale: size / side, left: (x0 + x1 - side) / 2, top: (y0 + y1 - side) / 2 };
}

export class Tile {
  element = make("button", "tile");
  /** @type {"loading" | "shown" | "broken"} */
  image = "loading";
  isPicked = false;
  /** Why it was not answered; empty: nobody has tried. */
  why = "";
  /** When its image has come, or has failed to. @type {Promise<void>} */
  loaded;

  /**
   * @param {ItemSummary} item
   * @param {(key: string) => string} source Gives an image's address.
   */
  constructor(item, source) {
    this.item = item.item;
    const image = make("img");
    this.loaded = new Promise((done) => {
      image.addEventListener("load", () => done(this.#ended("shown")));
      image.addEventListener("error", () => done(this.#ended("broken")));
    });
    const [x0, y0, x1, y1] = item.box ?? [0, 0, item.width, item.height];
    const { scale, left, top } = cropOf([x0, y0, x1, y1]);
    image.src = source(item.key);
    image.alt = item.key;
    image.width = item.width;
    image.height = item.height;
    image.style.transform = `translate(${-left * scale}px, ${-top * scale}px) scale(${scale})`;
    const frame = make("i");
    frame.style.left = `${(x0 - left) * scale - BORDER}px`;
    frame.style.top = `${(y0 - top) * scale - BORDER}px`;
    frame.style.width = `${(x1 - x0) * scale}px`;
    frame.style.height = `${(y1 - y0) * scale}px`;
    this.element.type = "button";
    this.element.dataset.item = item.item;
    this.element.dataset.image = this.image;
    this.element.append(image, frame);
    this.element.addEventListener("click", () => this.pick(!this.isPicked));
    this.pick(false);
  }

  /** Picks it out as wrong, or not; what cannot be answered cannot be picked. @param {boolean} isPicked */
  pick(isPicked) {
    this.isPicked = isPicked && this.image !== "broken" && !this.why;
    this.element.setAttribute("aria-pressed", String(this.isPicked));
  }

  /** Shows why it was not answered: it stays for a page. @param {string} why */
  keep(why) {
    this.why = why;
    this.element.dataset.why = why;
    this.#cannotBeAnswered("kept", `not answered: ${why}`);
  }

  /** @param {"shown" | "broken"} state */
  #ended(state) {
    this.image = state;
    this.element.dataset.image = state;
    if (state === "broken") this.#cannotBeAnswered("broken", "cannot be shown");
  }

  /** @param {string} className @param {string} text */
  #cannotBeAnswered(className, text) {
    this.pick(false);
    this.element.classList.add(className);
    this.element.setAttribute("aria-label", text);
  }
}
