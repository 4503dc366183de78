// The crop grid: many labels of one class on a page; people pick the wrong ones out, and submit all of them.
//
// A crop is the image itself, moved and scaled within its tile, so nothing is cut on the server.

const SIZE = 168; // CSS pixels of a tile
const CONTEXT = 0.35; // of the box's longer side around it, on each side
const LOAD_MS = 8_000; // for the images of a page to come, before people are told that they have not
const SEEN_MS = 400; // in less nobody judges a page of crops: a key that comes before means the page before
const WRONG = [
  ["not_an_object", "not an object"],
  ["bad_box", "bad box"],
  ["wrong_class", "another class"],
];

const STYLE = `
  #vouch-grid { position: fixed; inset: 0; z-index: 19500; display: flex; flex-direction: column; background: #14171c;
    color: #e8eaed; font: 15px/1.4 system-ui, sans-serif; }
  #vouch-grid header { display: flex; flex-wrap: wrap; gap: 14px; align-items: center; padding: 12px 18px; }
  #vouch-grid h1 { margin: 0; font-size: 20px; font-weight: 600; color: #ffb14a; }
  #vouch-grid .how { color: #aab1bd; }
  #vouch-grid select, #vouch-grid header button { padding: 7px 12px; border: 1px solid #5b6472; border-radius: 6px;
    background: #20252d; color: inherit; font: inherit; }
  #vouch-grid header button.submit { border-color: #ffb14a; background: #ffb14a; color: #14171c; font-weight: 600; }
  #vouch-grid .tiles { flex: 1; overflow-y: auto; display: grid; grid-template-columns: repeat(auto-fill, ${SIZE}px);
    grid-auto-rows: ${SIZE}px; gap: 10px; padding: 6px 18px 56px; justify-content: center; }
  #vouch-grid .tile { position: relative; overflow: hidden; padding: 0; border: 0; border-radius: 6px; background: #000;
    outline: 3px solid transparent; outline-offset: -1px; cursor: pointer; }
  #vouch-grid .tile:focus-visible { outline-color: #7db7ff; }
  #vouch-grid .tile[aria-pressed=true] { outline-color: #ff5d52; }
  #vouch-grid .tile[aria-pressed=true]::after { content: "\\2715"; position: absolute; right: 6px; top: 2px;
    color: #ff5d52; font-size: 24px; font-weight: 700; text-shadow: 0 0 4px #000; }
  #vouch-grid .tile img { position: absolute; left: 0; top: 0; max-width: none; transform-origin: 0 0; }
  #vouch-grid .tile.broken { cursor: default; color: #ff9c93; font: inherit; }
  #vouch-grid .tile.broken > * { display: none; }
  #vouch-grid .tile.broken::before { content: "cannot be shown"; }
  #vouch-grid .tile.kept { cursor: default; color: #ff9c93; font: 12px/1.3 system-ui, sans-serif; padding: 6px; }
  #vouch-grid .tile.kept > * { display: none; }
  #vouch-grid .tile.kept::before { content: "not answered: " attr(data-why); }
  #vouch-grid .tile i { position: absolute; box-sizing: content-box; border: 2px solid #ff9500; box-shadow: 0 0 0 1px #0008; }`;

// What a tile shows of an image: a square around the box, in the image's pixels.
export function cropOf(box, size = SIZE) {
  const [x0, y0, x1, y1] = box;
  const side = Math.max(x1 - x0, y1 - y0) * (1 + 2 * CONTEXT);
  const scale = size / side;
  return { scale, left: (x0 + x1 - side) / 2, top: (y0 + y1 - side) / 2 };
}

function make(tag, name, text = "") {
  const made = document.createElement(tag);
  if (name) made.className = name;
  made.textContent = text;
  return made;
}

function tileOf(card, source) {
  const tile = make("button", "tile");
  const { scale, left, top } = cropOf(card.box);
  const image = make("img");
  image.addEventListener("load", () => { tile.dataset.image = "shown"; });
  image.addEventListener("error", () => {
    tile.dataset.image = "broken";
    tile.classList.add("broken");
    tile.setAttribute("aria-pressed", "false");
    tile.setAttribute("aria-label", "cannot be shown");
  });
  tile.dataset.image = "loading";
  image.src = source(card.key);
  image.alt = card.key;
  image.width = card.width;
  image.height = card.height;
  image.style.transform = `translate(${-left * scale}px, ${-top * scale}px) scale(${scale})`;
  const [x0, y0, x1, y1] = card.box;
  const frame = make("i");
  Object.assign(frame.style, {
    left: `${(x0 - left) * scale - 2}px`,
    top: `${(y0 - top) * scale - 2}px`,
    width: `${(x1 - x0) * scale}px`,
    height: `${(y1 - y0) * scale}px`,
  });
  tile.type = "button";
  tile.title = card.why;
  tile.dataset.item = card.item;
  tile.setAttribute("aria-pressed", "false");
  tile.append(image, frame);
  tile.addEventListener("click", () => {
    if (tile.dataset.image === "broken" || tile.dataset.why) return;
    tile.setAttribute("aria-pressed", String(tile.getAttribute("aria-pressed") !== "true"));
  });
  return tile;
}

// An item that is not answered stays for a page, so that people see which, and why.
function markKept(tile, why) {
  tile.dataset.why = why;
  tile.classList.add("kept");
  tile.setAttribute("aria-pressed", "false");
  tile.setAttribute("aria-label", `not answered: ${why}`);
}

async function painted(tiles) {
  while (tiles.some((tile) => tile.dataset.image === "loading")) await new Promise((done) => setTimeout(done, 50));
  for (let frames = 2; frames > 0; frames--) await new Promise((done) => requestAnimationFrame(done));
}

// Opens the grid over the App. `call` runs an operator, `desk` is what is on the desk, `say` tells people something,
// `source` gives an image's address, `busy` runs one thing at a time, `closed` is told when the grid is left.
export function cropGrid({ call, desk, say, source, busy, closed }) {
  const root = make("section");
  root.id = "vouch-grid";
  const style = make("style");
  style.textContent = STYLE;
  const title = make("h1");
  const said = make("select");
  said.setAttribute("aria-label", "Those picked out are");
  for (const [value, words] of WRONG) said.append(new Option(`picked: ${words}`, value));
  const right = make("select");
  right.setAttribute("aria-label", "Their class");
  const submitButton = make("button", "submit", "Submit (Alt+Enter)");
  const closeButton = make("button", "", "Close (Esc)");
  const tiles = make("div", "tiles");
  const header = make("header");
  header.append(title, make("span", "how", "click the wrong ones"), said, right, submitButton, closeButton);
  root.append(style, header, tiles);
  document.body.append(root);
  let openedAt = 0; // the page
  let seenAt = 0; // all of it; 0: not yet
  let className = null;
  const left = new Set(); // items that are not shown again: those that cannot be, and those that were not answered

  function choose() {
    right.style.display = said.value === "wrong_class" ? "" : "none";
  }

  // The next page: more of the class that was shown; when there are none, the class that comes next.
  async function next(kept = []) {
    const asked = { leave: [...left] };
    let page = className === null ? { grid: [] } : await call("grid_take", { ...asked, class_name: className });
    if (!page.grid.length) page = await call("grid_take", asked);
    className = page.class_name;
    if (!page.grid.length && !kept.length) {
      say(left.size ? "What is left cannot be answered here." : "No labels are left to verify.");
      return close();
    }
    const cards = page.grid.map((item) => desk.cards.find((card) => card.item === item));
    title.textContent = cards.length ? `${cards.length} × ${className}` : "No labels are left to verify here";
    right.replaceChildren(
      new Option("its class: choose", ""),
      ...desk.classes.filter((name) => name !== className).map((name) => new Option(name, name)),
    );
    said.value = WRONG[0][0];
    choose();
    tiles.replaceChildren(...kept, ...cards.map((card) => tileOf(card, source)));
    tiles.scrollTop = 0;
    tiles.firstChild.focus({ preventScroll: true });
    watchPage([...tiles.children]);
  }

  async function watchPage(all) {
    openedAt = performance.now();
    seenAt = 0;
    delete root.dataset.ready;
    await painted(all);
    if (tiles.firstChild !== all[0]) return;
    seenAt = performance.now();
    setTimeout(() => { if (seenAt) root.dataset.ready = "true"; }, SEEN_MS);
  }

  function isSeen() {
    if (!seenAt && performance.now() - openedAt > LOAD_MS) {
      throw new Error("some images have not come yet: wait a moment, and submit again");
    }
    return seenAt > 0 && performance.now() - seenAt >= SEEN_MS;
  }

  async function answer(shown) {
    const picked = shown.filter((tile) => tile.getAttribute("aria-pressed") === "true");
    const params = {
      shown: shown.map((tile) => tile.dataset.item),
      wrong: picked.map((tile) => tile.dataset.item),
      said: said.value,
      seconds: (performance.now() - seenAt) / 1000,
    };
    if (said.value === "wrong_class" && picked.length) {
      if (!right.value) throw new Error("choose the class of those that you picked");
      params.class_name = right.value;
    }
    const { answered, kept } = await call("grid_submit", params);
    const wrong = picked.filter((tile) => !kept[tile.dataset.item]).length;
    const words = wrong ? `${answered} answered, ${wrong} of them as ${said.selectedOptions[0].text.slice(8)}` : `${answered} answered, all correct`;
    return { kept, words };
  }

  // Answered tiles leave, whatever became of the others.
  function submit() {
    return busy(async () => {
      const all = [...tiles.children].filter((tile) => !tile.dataset.why);
      if (tiles.firstChild && !isSeen()) return;
      const shown = all.filter((tile) => tile.dataset.image === "shown");
      const { kept, words } = shown.length ? await answer(shown) : { kept: {}, words: "" };
      const gone = all.filter((tile) => tile.dataset.image === "broken").map((tile) => tile.dataset.item);
      for (const item of [...gone, ...Object.keys(kept)]) left.add(item);
      // What has left the desk needs no skipping.
      for (const item of gone) await call("skip", { item }).catch(() => null);
      const marked = shown.filter((tile) => kept[tile.dataset.item]);
      for (const tile of marked) markKept(tile, kept[tile.dataset.item]);
      const parts = words ? [words] : [];
      if (gone.length) parts.push(`${gone.length} skipped: they cannot be shown`);
      if (marked.length) parts.push(`${marked.length} not answered: ${kept[marked[0].dataset.item]}`);
      say(parts.join("; "), marked.length > 0);
      tiles.replaceChildren(...marked);
      await next(marked);
    });
  }

  function close() {
    window.removeEventListener("keydown", onKey, { capture: true });
    root.remove();
    closed();
  }

  function onKey(event) {
    if (event.code === "Escape") close();
    else if (!event.altKey || (event.code !== "Enter" && event.code !== "NumpadEnter")) return;
    else if (!event.repeat) submit();
    event.preventDefault();
    event.stopImmediatePropagation();
  }

  said.addEventListener("change", choose);
  submitButton.addEventListener("click", submit);
  closeButton.addEventListener("click", close);
  window.addEventListener("keydown", onKey, { capture: true });
  return { next };
}
