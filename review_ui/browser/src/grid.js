// @ts-check
// The crop grid: many labels of one class on a page; people pick the wrong ones out, and submit all of them.
import { button, make } from "./dom.js";
import { SIZE, Tile } from "./tile.js";
import { LOAD_MS, PAGE_SEEN_MS } from "./timing.js";
import { frame, sleep } from "./waiting.js";

const WRONG = /** @type {const} */ ([
  ["not_an_object", "not an object"],
  ["bad_box", "bad box"],
  ["wrong_class", "another class"],
]);

export const STYLE = `
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
  #vouch-grid .tile i { position: absolute; box-sizing: content-box; border: 2px solid #ff9500;
    box-shadow: 0 0 0 1px #0008; }`;

/**
 * A list to choose from.
 *
 * @param {string} label
 */
function select(label) {
  const made = make("select");
  made.setAttribute("aria-label", label);
  return made;
}

/** @param {string} value @param {string} text */
function option(value, text) {
  const made = make("option", "", text);
  made.value = value;
  return made;
}

export class CropGrid {
  #root = make("section");
  #title = make("h1");
  #verdict = select("Those picked out are");
  #rightClass = select("Their class");
  #page = make("div", "tiles");
  /** @type {Tile[]} */
  #tiles = [];
  #openedAt = 0; // the page
  #seenAt = 0; // all of it; 0: not yet
  #isReady = false; // somebody can have judged it
  /** @type {string | null | undefined} */
  #className = null;
  /** Items that are not shown again: those that cannot be, and those that were not answered. @type {Set<string>} */
  #leave = new Set();
  #call;
  #session;
  #notify;
  #busy;
  #closed;

  /**
   * @param {import("./types.js").Call} call
   * @param {import("./session.js").Session} session
   * @param {import("./types.js").Notify} notify
   * @param {Pick<import("./busy.js").Busy, "run">} busy
   * @param {() => void} closed Told when the grid is left.
   */
  constructor(call, session, notify, busy, closed) {
    this.#call = call;
    this.#session = session;
    this.#notify = notify;
    this.#busy = busy;
    this.#closed = closed;
  }

  /** Opens it over the App. */
  async open() {
    this.#root.id = "vouch-grid";
    this.#verdict.append(...WRONG.map(([value, text]) => option(value, `picked: ${text}`)));
    this.#verdict.addEventListener("change", () => this.#offerClasses());
    const submit = button("Submit (Alt+Enter)", () => this.submit());
    submit.className = "submit";
    const close = button("Close (Esc)", () => this.close());
    const how = make("span", "how", "click the wrong ones");
    const header = make("header");
    header.append(this.#title, how, this.#verdict, this.#rightClass, submit, close);
    this.#root.append(header, this.#page);
    document.body.append(this.#root);
    window.addEventListener("keydown", this.#onKey, { capture: true });
    await this.#next([]);
  }

  close() {
    window.removeEventListener("keydown", this.#onKey, { capture: true });
    this.#root.remove();
    this.#closed();
  }

  /** @param {KeyboardEvent} event */
  #onKey = (event) => {
    if (event.code === "Escape") this.close();
    else if (!event.altKey || (event.code !== "Enter" && event.code !== "NumpadEnter")) return;
    else if (!event.repeat) this.submit();
    event.preventDefault();
    event.stopImmediatePropagation();
  };

  /** A class is to be chosen only where those picked out are of another one. */
  #offerClasses() {
    this.#rightClass.style.display = this.#verdict.value === "wrong_class" ? "" : "none";
  }

  /**
   * Shows the next page: more of the class that was shown; when there are none, of the class that comes next.
   *
   * @param {Tile[]} kept Those of the page before that were not answered.
   */
  async #next(kept) {
    const items = await this.#take();
    if (!items.length && !kept.length) {
      this.#notify(this.#leave.size ? "What is left cannot be answered here." : "No labels are left to verify.");
      return this.close();
    }
    this.#title.textContent = items.length
      ? `${items.length} × ${this.#className}`
      : "No labels are left to verify here";
    const others = this.#session.classes.filter((name) => name !== this.#className);
    const classes = others.map((name) => option(name, name));
    this.#rightClass.replaceChildren(option("", "its class: choose"), ...classes);
    for (const list of [this.#verdict, this.#rightClass]) list.options[0].selected = true;
    this.#offerClasses();
    this.#tiles = [...kept, ...items.map((item) => new Tile(item, (key) => this.#session.source(key)))];
    this.#page.replaceChildren(...this.#tiles.map((tile) => tile.element));
    this.#page.scrollTop = 0;
    this.#tiles[0].element.focus({ preventScroll: true });
    this.#watch(this.#tiles);
  }

  /** @returns {Promise<import("./types.js").ItemSummary[]>} */
  async #take() {
    const leave = [...this.#leave];
    let page = this.#className ? await this.#call("grid_take", { leave, class_name: this.#className }) : {};
    if (!page.grid?.length) page = await this.#call("grid_take", { leave });
    this.#className = page.class_name;
    return (page.grid ?? []).flatMap((id) => this.#session.item(id) ?? []);
  }

  /** Notes when all of a page can be seen. @param {Tile[]} tiles */
  async #watch(tiles) {
    this.#openedAt = performance.now();
    this.#seenAt = 0;
    this.#isReady = false;
    delete this.#root.dataset.ready;
    await Promise.all(tiles.filter((tile) => tile.image === "loading").map((tile) => tile.loaded));
    for (let frames = 2; frames > 0; frames--) await frame();
    if (this.#tiles !== tiles) return;
    this.#seenAt = performance.now();
    await sleep(PAGE_SEEN_MS);
    if (this.#tiles !== tiles) return;
    this.#isReady = true;
    this.#root.dataset.ready = "true";
  }

  /** A key that comes before anybody can have judged the page means the page before. */
  #isSeen() {
    if (!this.#seenAt && performance.now() - this.#openedAt > LOAD_MS) {
      throw new Error("some images have not come yet: wait a moment, and submit again");
    }
    return this.#isReady;
  }

  /** Answers the page; what was answered leaves it, whatever became of the others. */
  submit() {
    return this.#busy.run(async () => {
      const all = this.#tiles.filter((tile) => !tile.why);
      if (this.#tiles.length && !this.#isSeen()) return;
      const shown = all.filter((tile) => tile.image === "shown");
      const { kept, message } = shown.length ? await this.#answer(shown) : { kept: {}, message: "" };
      const gone = all.filter((tile) => tile.image === "broken").map((tile) => tile.item);
      for (const item of [...gone, ...Object.keys(kept)]) this.#leave.add(item);
      // What has left the session needs no skipping.
      for (const item of gone) await this.#call("skip", { item }).catch(() => null);
      const marked = shown.filter((tile) => kept[tile.item]);
      for (const tile of marked) tile.keep(kept[tile.item]);
      const parts = message ? [message] : [];
      if (gone.length) parts.push(`${gone.length} skipped: they cannot be shown`);
      if (marked.length) parts.push(`${marked.length} not answered: ${marked[0].why}`);
      this.#notify(parts.join("; "), marked.length > 0);
      this.#tiles = marked;
      this.#page.replaceChildren(...marked.map((tile) => tile.element));
      await this.#next(marked);
    });
  }

  /** @param {Tile[]} shown */
  async #answer(shown) {
    const picked = shown.filter((tile) => tile.isPicked);
    const verdict = this.#verdict.value;
    /** @type {import("./types.js").Parameters} */
    const parameters = {
      shown: shown.map((tile) => tile.item),
      wrong: picked.map((tile) => tile.item),
      verdict,
      seconds: (performance.now() - this.#seenAt) / 1000,
    };
    if (verdict === "wrong_class" && picked.length) {
      if (!this.#rightClass.value) throw new Error("choose the class of those that you picked");
      parameters.class_name = this.#rightClass.value;
    }
    const { answered, kept = {} } = await this.#call("grid_submit", parameters);
    const wrong = picked.filter((tile) => !kept[tile.item]).length;
    const name = WRONG.find(([value]) => value === verdict)?.[1];
    return { kept, message: `${answered} answered, ${wrong ? `${wrong} of them as ${name}` : "all correct"}` };
  }
}
