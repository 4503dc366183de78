// Tells which item's picture is on the screen: nobody can have seen, nor answer, what the App has not painted yet.
//
// The address names the next item before the App lets go of the picture of the one before, and both may show the same
// image. But for every item that it opens the App makes a new element, which it hides until it has painted it.

const SHOWN = '[data-cy="lighter-sample-image"]';
const RENDERER = '[data-cy="lighter-sample-renderer"]';

// `source` gives an image's address, `changed` is told when an image has come or has failed to.
export function watchPictures({ source, changed }) {
  const madeFor = new WeakMap(); // the App's element -> id of the sample that the address named when it was made
  const asked = new Map(); // image key -> { state: "loading", "shown" or "broken", done: a promise of the state }

  function note() {
    const sample = new URL(location.href).searchParams.get("id");
    for (const image of document.querySelectorAll(SHOWN)) {
      if (!madeFor.get(image)) madeFor.set(image, sample);
    }
  }

  // Whether the App has painted the picture of this very item.
  function isPainted(card) {
    note();
    const image = document.querySelector(SHOWN);
    if (!image || madeFor.get(image) !== card.sample || !image.complete || !image.naturalWidth) return false;
    if (image.style.display === "none" || !(parseFloat(image.style.width) > 0)) return false;
    return document.querySelector(RENDERER)?.style.visibility === "visible";
  }

  // Whether the App has given up on the picture of this item; it does not ask again by itself.
  function hasFailed(card) {
    const image = document.querySelector(SHOWN);
    return Boolean(image) && madeFor.get(image) === card.sample && image.complete && !image.naturalWidth;
  }

  // The App shows an empty picture where an image does not come; so it is asked for beside the App, at the same address.
  // One that did not come is asked for again: its bucket may be back.
  function look(card) {
    const known = asked.get(card.key);
    if (known && known.state !== "broken") return known;
    const image = new Image();
    const picture = { state: "loading" };
    picture.done = new Promise((done) => {
      const end = (state) => () => {
        picture.state = state;
        done(state);
        changed();
      };
      image.addEventListener("load", end("shown"));
      image.addEventListener("error", end("broken"));
    });
    image.src = source(card.key);
    asked.set(card.key, picture);
    return picture;
  }

  const isBroken = (card) => asked.get(card.key)?.state === "broken";

  new MutationObserver(note).observe(document.body, { childList: true, subtree: true });
  note();
  return { isPainted, hasFailed, look, isBroken };
}
