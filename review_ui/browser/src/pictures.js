// @ts-check
// Tells which item's picture is on the screen: nobody can have seen, nor answer, what the App has not painted yet.
//
// The address names the next item before the App lets go of the picture of the one before, and both may show the same
// image. But for every item that it opens the App makes a new element, which it hides until it has painted it.

/** @typedef {import("./types.js").ItemSummary} ItemSummary */
/** @typedef {import("./types.js").Picture} Picture */

export const CANNOT_BE_SHOWN = "this image cannot be shown: skip it (Alt+S)";

export class Pictures {
  /** The App's element -> id of the sample that the address named when it was made. */
  #madeFor = /** @type {WeakMap<HTMLImageElement, string | null>} */ (new WeakMap());
  /** By key. */
  #asked = /** @type {Map<string, Picture>} */ (new Map());
  #app;
  #source;
  #changed;

  /**
   * @param {Pick<import("./app.js").App, "images" | "isPainted" | "addressedSample">} app
   * @param {(key: string) => string} source Gives an image's address.
   * @param {() => void} changed Told when an image has come or has failed to.
   */
  constructor(app, source, changed) {
    this.#app = app;
    this.#source = source;
    this.#changed = changed;
  }

  /** Notes new elements as soon as the App makes them, while the address still names the item. */
  watch() {
    new MutationObserver(() => this.note()).observe(document.body, { childList: true, subtree: true });
    this.note();
  }

  note() {
    const sample = this.#app.addressedSample();
    for (const image of this.#app.images()) {
      if (!this.#madeFor.get(image)) this.#madeFor.set(image, sample);
    }
  }

  /**
   * Whether the App has painted the picture of this very item.
   *
   * @param {ItemSummary} item
   */
  isPainted(item) {
    this.note();
    const image = this.#imageOf(item);
    return image !== null && this.#app.isPainted(image);
  }

  /**
   * Whether the App has given up on the picture of this item; it does not ask again by itself.
   *
   * @param {ItemSummary} item
   */
  hasFailed(item) {
    const image = this.#imageOf(item);
    return image?.complete === true && !image.naturalWidth;
  }

  /**
   * Asks for an image beside the App, at the same address, as the App shows an empty picture where one does not come.
   * One that did not come is asked for again: its bucket may be back.
   *
   * @param {ItemSummary} item
   * @returns {Picture}
   */
  look(item) {
    const known = this.#asked.get(item.key);
    if (known && known.state !== "broken") return known;
    const image = new Image();
    /** @type {Picture} */
    const picture = {
      state: "loading",
      done: new Promise((done) => {
        /** @param {"shown" | "broken"} state */
        const end = (state) => {
          picture.state = state;
          done(state);
          this.#changed();
        };
        image.addEventListener("load", () => end("shown"));
        image.addEventListener("error", () => end("broken"));
      }),
    };
    image.src = this.#source(item.key);
    this.#asked.set(item.key, picture);
    return picture;
  }

  /** @param {ItemSummary} item */
  isBroken(item) {
    return this.#asked.get(item.key)?.state === "broken";
  }

  /** @param {ItemSummary} item */
  #imageOf(item) {
    const [image] = this.#app.images();
    return image && this.#madeFor.get(image) === item.sample ? image : null;
  }
}
