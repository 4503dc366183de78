// Built by `make js` from review_ui/browser/src: change it there.
"use strict";
(() => {
  var __defProp = Object.defineProperty;
  var __export = (target, all) => {
    for (var name in all)
      __defProp(target, name, { get: all[name], enumerable: true });
  };

  // src/pictures.js
  var CANNOT_BE_SHOWN = "this image cannot be shown: skip it (Alt+S)";
  var Pictures = class {
    /** The App's element -> id of the sample that the address named when it was made. */
    #madeFor = (
      /** @type {WeakMap<HTMLImageElement, string | null>} */
      /* @__PURE__ */ new WeakMap()
    );
    /** By key. */
    #asked = (
      /** @type {Map<string, Picture>} */
      /* @__PURE__ */ new Map()
    );
    #app;
    #source;
    #changed;
    /**
     * @param {Pick<import("./app.js").App, "images" | "isPainted" | "addressedSample">} app
     * @param {(key: string) => string} source Gives an image's address.
     * @param {() => void} changed Told when an image has come or has failed to.
     */
    constructor(app, source2, changed2) {
      this.#app = app;
      this.#source = source2;
      this.#changed = changed2;
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
      const picture = {
        state: "loading",
        done: new Promise((done) => {
          const end = (state) => {
            picture.state = state;
            done(state);
            this.#changed();
          };
          image.addEventListener("load", () => end("shown"));
          image.addEventListener("error", () => end("broken"));
        })
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
  };

  // src/timing.js
  var SEEN_MS = 150;
  var PAGE_SEEN_MS = 400;
  var BURST_MS = 60;
  var EDIT_MS = 250;
  var CLICK_MS = 400;
  var LABEL_MS = 500;
  var FORM_MS = 2e3;
  var SAVE_MS = 6e4;
  var OPENING_MS = 5e3;
  var REOPEN_MS = 1e4;
  var SLOW_MS = 1e3;
  var LOAD_MS = 8e3;
  var AGAIN_MS = 3e4;
  var RENEW_MS = 6e4;
  var IDLE_MS = 5 * 6e4;
  var ALIVE_MS = 3e3;
  var ANSWER_MS = 3e4;

  // src/waiting.js
  var sleep = (time) => new Promise((done) => setTimeout(done, time));
  var frame = () => new Promise((done) => document.hidden ? setTimeout(done) : requestAnimationFrame(() => done(void 0)));
  function onPageChange(listener) {
    const observer = new MutationObserver(listener);
    observer.observe(document.body, { childList: true, subtree: true, attributes: true, characterData: true });
    for (const name of ["load", "error", "input"]) document.addEventListener(name, listener, { capture: true });
    window.addEventListener("popstate", listener);
    window.navigation?.addEventListener("currententrychange", listener);
    return () => {
      observer.disconnect();
      for (const name of ["load", "error", "input"]) document.removeEventListener(name, listener, { capture: true });
      window.removeEventListener("popstate", listener);
      window.navigation?.removeEventListener("currententrychange", listener);
    };
  }
  async function until(found, trouble, limit = FORM_MS) {
    const end = performance.now() + limit;
    for (; ; ) {
      const result = found();
      if (result) return result;
      const left = end - performance.now();
      if (left <= 0) throw new Error(trouble);
      await pageChange(left);
      await frame();
    }
  }
  function pageChange(limit) {
    return new Promise((done) => {
      const end = () => {
        stop();
        clearTimeout(timer);
        done(void 0);
      };
      const stop = onPageChange(end);
      const timer = setTimeout(end, limit);
    });
  }
  function watchPage(look2) {
    let timer = 0;
    let due = Number.POSITIVE_INFINITY;
    const wake = (delay) => {
      const at = performance.now() + delay;
      if (at >= due) return;
      clearTimeout(timer);
      due = at;
      timer = setTimeout(() => {
        due = Number.POSITIVE_INFINITY;
        const again = look2();
        if (Number.isFinite(again)) wake(Math.max(0, again));
      }, delay);
    };
    const soon = () => wake(BURST_MS);
    onPageChange(soon);
    soon();
    return soon;
  }

  // src/answering.js
  var Answering = class {
    #parts;
    /** @param {Parts} parts */
    constructor(parts) {
      this.#parts = parts;
    }
    /** A key that comes before anybody can have seen the item means the one before, and is ignored. */
    #isTooEarly() {
      const { navigation: navigation2, screen: screen2 } = this.#parts;
      const item = navigation2.shown();
      return navigation2.isComing() || item !== null && screen2.isTooEarly(item);
    }
    /**
     * @param {string} name The operator.
     * @param {import("./types.js").Parameters} [parameters]
     */
    answer(name, parameters = {}) {
      const { app, call: call2, session: session2, busy: busy2, navigation: navigation2, screen: screen2, edits: edits2, labels: labels2, pause: pause2, notify: notify2 } = this.#parts;
      return busy2.run(async () => {
        if (this.#isTooEarly()) return;
        const item = navigation2.shown();
        if (!item) throw new Error("open an item first: Alt+T takes a batch");
        if (name !== "skip" && !screen2.isReady(item)) await this.#throwUnseen(item);
        await edits2.saved();
        const seconds = screen2.seconds();
        const next = session2.beside(item, 1) ?? session2.beside(item, -1);
        notify2("");
        if (next) navigation2.open(next);
        try {
          await call2(name, { item: item.item, seconds, ...parameters });
        } catch (error) {
          if (next && session2.item(item.item)) {
            await navigation2.backTo(item, next);
            labels2.reselect();
          }
          throw error;
        }
        if (next) return;
        await pause2.show("This batch is done").finally(() => app.closeSample());
      });
    }
    /** Asks what the models say of the item. Nothing shows it before: whoever reads it first follows it. */
    hint() {
      const { call: call2, busy: busy2, navigation: navigation2 } = this.#parts;
      return busy2.run(async () => {
        if (this.#isTooEarly()) return;
        const item = navigation2.shown();
        if (item) await call2("hint", { item: item.item });
      });
    }
    take() {
      const { call: call2, session: session2, busy: busy2, navigation: navigation2, edits: edits2, pause: pause2, show: show2, notify: notify2 } = this.#parts;
      return busy2.run(async () => {
        await edits2.saved();
        const { taken } = await call2("take_batch");
        const [first] = session2.items;
        if (!first) return pause2.show("Nothing can be taken now");
        notify2(taken ? `${taken} items taken` : "this batch is not done yet");
        if (!navigation2.shown()) show2(first);
      });
    }
    undo() {
      const { call: call2, session: session2, busy: busy2, edits: edits2, show: show2, notify: notify2 } = this.#parts;
      return busy2.run(async () => {
        if (this.#isTooEarly()) return;
        await edits2.saved();
        const result = await call2("undo");
        const item = session2.item(result.item);
        notify2(`Taken back: ${result.answer}`);
        if (item) show2(item);
      });
    }
    giveBack() {
      const { app, call: call2, busy: busy2, edits: edits2, pause: pause2 } = this.#parts;
      return busy2.run(async () => {
        await edits2.saved();
        const { returned } = await call2("give_back");
        await pause2.show(`${returned} items given back`).finally(() => app.closeSample());
      });
    }
    /** Opens the item beside the one that is shown. @param {number} by */
    step(by) {
      const { session: session2, busy: busy2, navigation: navigation2, edits: edits2 } = this.#parts;
      return busy2.run(async () => {
        const item = navigation2.shown();
        if (navigation2.isComing() || !item) return;
        await edits2.saved();
        const next = session2.beside(item, by);
        if (next) navigation2.open(next);
      });
    }
    /** Sets the class of the label in question, or of a box that was drawn. @param {number} place */
    pickClass(place) {
      const { session: session2, busy: busy2, navigation: navigation2, labels: labels2 } = this.#parts;
      const name = session2.classes[place];
      const item = navigation2.shown();
      if (!name || !item) return;
      if (item.kind === "label" && !labels2.isNewBoxSelected(item)) this.answer("wrong_class", { class_name: name });
      else busy2.run(() => labels2.setClass(name));
    }
    /**
     * Throws why an item that is not painted cannot be answered. The App does not ask again for an image that did not come.
     *
     * @param {ItemSummary} item
     */
    async #throwUnseen(item) {
      const { app, navigation: navigation2, pictures: pictures2 } = this.#parts;
      navigation2.leaveExplore(item);
      const state = await Promise.race([pictures2.look(item).done, sleep(LOAD_MS)]);
      if (state === "broken") throw new Error(CANNOT_BE_SHOWN);
      if (state === "shown" && pictures2.hasFailed(item)) app.loadSample(item.sample);
      throw new Error("the image has not come yet: wait a moment, or skip it (Alt+S)");
    }
  };

  // src/api.js
  var PLUGIN = "@vouch/review";
  function operators(session2, datasetName2) {
    let sent = 0;
    return async (name, parameters = {}) => {
      const number = ++sent;
      const answer = await fetch("/operators/execute", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ operator_uri: `${PLUGIN}/${name}`, dataset_name: datasetName2(), params: parameters })
      }).catch(() => null);
      if (!answer) throw new Error("the review's server does not answer; is `vouch review` still running?");
      const body = await answer.json().catch(() => ({}));
      if (!answer.ok) {
        throw new Error(body.error || body.detail || `the review's server refused this (${answer.status})`);
      }
      const result = body.result || {};
      session2.update(result, number);
      if (body.error_message || body.error || result.error) {
        throw new Error(result.error || body.error_message || "this failed; the log of the review says why");
      }
      return result;
    };
  }

  // src/app.js
  var app_exports = {};
  __export(app_exports, {
    STYLE: () => STYLE,
    addressedSample: () => addressedSample,
    annotate: () => annotate,
    classList: () => classList,
    classOption: () => classOption,
    clickLabel: () => clickLabel,
    closeLabel: () => closeLabel,
    closeSample: () => closeSample,
    datasetName: () => datasetName,
    drawButton: () => drawButton,
    hasFailed: () => hasFailed,
    hasPanels: () => hasPanels,
    images: () => images,
    isAnnotating: () => isAnnotating,
    isClassList: () => isClassList,
    isField: () => isField,
    isGridShown: () => isGridShown,
    isItemOpen: () => isItemOpen,
    isLabelOpen: () => isLabelOpen,
    isListed: () => isListed,
    isPainted: () => isPainted,
    isPanelShown: () => isPanelShown,
    isSaved: () => isSaved,
    labelMenu: () => labelMenu,
    leaveField: () => leaveField,
    leaveListOnEscape: () => leaveListOnEscape,
    loadDataset: () => loadDataset,
    loadSample: () => loadSample,
    openPanel: () => openPanel,
    openSample: () => openSample,
    pressOption: () => pressOption,
    registerInBrowser: () => registerInBrowser,
    reloadSamples: () => reloadSamples,
    removeMask: () => removeMask,
    selectedClass: () => selectedClass,
    selectedLabel: () => selectedLabel
  });
  var IMAGE = '[data-cy="lighter-sample-image"]';
  var RENDERER = '[data-cy="lighter-sample-renderer"]';
  var ANNOTATE = "annotate";
  var find = (name) => document.querySelector(`[data-cy="${name}"]`);
  var execute = (name, parameters = {}) => window.__foo__.executeOperator(name, parameters);
  var STYLE = `
  [data-cy=modal] { box-sizing: border-box; padding-bottom: var(--vouch-line, 0); }
  [data-cy=modal-content] { height: calc(100% - 76px) !important; }
  a[href*="voxel51.com/why-upgrade"] { display: none !important; }
  span:has(> [data-cy=nav-left-button]), span:has(> [data-cy=nav-right-button]) { display: none !important; }`;
  function datasetName() {
    const found = location.pathname.match(/\/datasets\/([^/?]+)/);
    return found ? decodeURIComponent(found[1]) : "";
  }
  var isItemOpen = () => find("modal") !== null;
  var hasPanels = () => find("panel-container") !== null;
  var isPanelShown = () => find("panel-tab-review_queue") !== null;
  var hasFailed = () => find("error-boundary") !== null;
  var isGridShown = () => find("panel-tab-samples") !== null;
  var addressedSample = () => new URL(location.href).searchParams.get("id");
  var openSample = (id) => execute("open_sample", { id, mode: ANNOTATE });
  var closeSample = () => execute("close_sample");
  var reloadSamples = () => execute("reload_samples");
  var openPanel = () => execute("open_panel", { name: "review_queue", isActive: true, layout: "horizontal" });
  var loadSample = (id) => location.assign(`${location.pathname}?id=${id}`);
  var loadDataset = () => location.assign(`${location.pathname}?pause`);
  var isAnnotating = () => window.__fos__.jotaiStore.get(window.__fos__.modalMode) === ANNOTATE;
  var annotate = () => window.__fos__.jotaiStore.set(window.__fos__.modalMode, ANNOTATE);
  function registerInBrowser(actions2) {
    const { Operator, OperatorConfig, registerOperator } = window.__foo__;
    class InBrowser extends Operator {
      get config() {
        return new OperatorConfig({ name: "in_browser", label: "Act in the browser", unlisted: true });
      }
      /** @param {{ params: { action: string } }} context */
      async execute({ params }) {
        await actions2[params.action]();
      }
    }
    registerOperator(InBrowser, PLUGIN);
  }
  var images = () => document.querySelectorAll(IMAGE);
  function isPainted(image) {
    if (!image.complete || !image.naturalWidth) return false;
    if (image.style.display === "none" || !(Number.parseFloat(image.style.width) > 0)) return false;
    const renderer = document.querySelector(RENDERER);
    return renderer?.style.visibility === "visible";
  }
  function isField(target) {
    if (!(target instanceof HTMLElement)) return false;
    return target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName);
  }
  function leaveField() {
    const active = document.activeElement;
    if (!isField(active)) return false;
    active.blur();
    return true;
  }
  var isSaved = () => find("annotation-save-state")?.dataset.settled !== "false";
  var isLabelOpen = () => find("annotate-edit-back") !== null;
  var closeLabel = () => find("annotate-edit-back")?.click();
  var isListed = (label) => find(`annotate-label-${label}`) !== null;
  var clickLabel = (label) => find(`annotate-label-${label}`)?.click();
  function selectedLabel() {
    const form = isLabelOpen() && find("root_label_container")?.closest(".form-group")?.parentElement;
    const text = form && find("modal")?.innerText || "";
    return text.match(/\bid:\s*([0-9a-f]{24})\b/)?.[1] ?? null;
  }
  var selectedClass = () => find("root_label_container")?.querySelector("input")?.value;
  var classList = () => find("root_label_container")?.querySelector("input[role=combobox]") ?? null;
  var isClassList = (target) => target !== null && target === classList();
  function leaveListOnEscape(event) {
    const field = event.target;
    if (event.code === "Escape" && field instanceof HTMLElement && field.matches("input[role=combobox]")) field.blur();
  }
  var classOption = (name) => [...document.querySelectorAll("[role=option]")].find((one) => one.textContent?.trim() === name);
  function pressOption(option2) {
    for (const kind of ["pointerdown", "mousedown", "pointerup", "mouseup", "click"]) {
      const Kind = kind.startsWith("pointer") ? PointerEvent : MouseEvent;
      option2.dispatchEvent(new Kind(kind, { bubbles: true, cancelable: true, button: 0 }));
    }
  }
  var drawButton = () => find("detection-mode");
  var labelMenu = () => find("label-menu-trigger");
  var removeMask = () => find("label-menu-remove-mask");

  // src/busy.js
  var Busy = class {
    isBusy = false;
    #notify;
    #done;
    /**
     * @param {import("./types.js").Notify} notify
     * @param {() => void} done After each, however it ended.
     */
    constructor(notify2, done) {
      this.#notify = notify2;
      this.#done = done;
    }
    /** @param {() => Promise<void>} work */
    async run(work) {
      if (this.isBusy) return;
      this.#set(true);
      try {
        await work();
      } catch (error) {
        this.#notify(error instanceof Error ? error.message : String(error), true);
      } finally {
        this.#set(false);
        this.#done();
      }
    }
    /** @param {boolean} isBusy */
    #set(isBusy) {
      this.isBusy = isBusy;
      document.documentElement.dataset.vouchBusy = String(isBusy);
    }
  };

  // src/dom.js
  function make(tag, className = "", text = "") {
    const made = document.createElement(tag);
    if (className) made.className = className;
    made.textContent = text;
    return made;
  }
  function button(text, action) {
    const made = make("button", "", text);
    made.addEventListener("click", () => void action());
    return made;
  }

  // src/cover.js
  var Cover = class {
    #element = document.querySelector("#vouch-cover") ?? make("div");
    /** Whose review it is. */
    reviewer = this.#element instanceof HTMLElement ? this.#element.dataset.reviewer ?? "" : "";
    /** @param {string} text */
    show(text) {
      this.#element.id = "vouch-cover";
      this.#element.replaceChildren(make("p", "", text));
      document.body.append(this.#element);
    }
    hide() {
      this.#element.remove();
    }
  };

  // src/edits.js
  var Edits = class {
    #last = 0;
    #app;
    /** @param {Pick<import("./app.js").App, "leaveField" | "isSaved">} app */
    constructor(app) {
      this.#app = app;
    }
    /** Something may have been changed just now. */
    made() {
      this.#last = performance.now();
    }
    /** An edit is on its way for a moment before the App shows that it is not saved; then it saves, and shows that. */
    async saved() {
      if (this.#app.leaveField()) this.made();
      await sleep(Math.max(0, this.#last + EDIT_MS - performance.now()));
      await until(() => this.#app.isSaved(), "your edit is not saved yet; wait a moment, and submit again", SAVE_MS);
    }
  };

  // src/tile.js
  var SIZE = 168;
  var CONTEXT = 0.35;
  var BORDER = 2;
  function cropOf([x0, y0, x1, y1], size = SIZE) {
    const side = Math.max(x1 - x0, y1 - y0) * (1 + 2 * CONTEXT);
    return { scale: size / side, left: (x0 + x1 - side) / 2, top: (y0 + y1 - side) / 2 };
  }
  var Tile = class {
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
    constructor(item, source2) {
      this.item = item.item;
      const image = make("img");
      this.loaded = new Promise((done) => {
        image.addEventListener("load", () => done(this.#ended("shown")));
        image.addEventListener("error", () => done(this.#ended("broken")));
      });
      const [x0, y0, x1, y1] = item.box ?? [0, 0, item.width, item.height];
      const { scale, left, top } = cropOf([x0, y0, x1, y1]);
      image.src = source2(item.key);
      image.alt = item.key;
      image.width = item.width;
      image.height = item.height;
      image.style.transform = `translate(${-left * scale}px, ${-top * scale}px) scale(${scale})`;
      const frame2 = make("i");
      frame2.style.left = `${(x0 - left) * scale - BORDER}px`;
      frame2.style.top = `${(y0 - top) * scale - BORDER}px`;
      frame2.style.width = `${(x1 - x0) * scale}px`;
      frame2.style.height = `${(y1 - y0) * scale}px`;
      this.element.type = "button";
      this.element.dataset.item = item.item;
      this.element.dataset.image = this.image;
      this.element.append(image, frame2);
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
  };

  // src/grid.js
  var WRONG = (
    /** @type {const} */
    [
      ["not_an_object", "not an object"],
      ["bad_box", "bad box"],
      ["wrong_class", "another class"]
    ]
  );
  var STYLE2 = `
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
  function select(label) {
    const made = make("select");
    made.setAttribute("aria-label", label);
    return made;
  }
  function option(value, text) {
    const made = make("option", "", text);
    made.value = value;
    return made;
  }
  var CropGrid = class {
    #root = make("section");
    #title = make("h1");
    #verdict = select("Those picked out are");
    #rightClass = select("Their class");
    #page = make("div", "tiles");
    /** @type {Tile[]} */
    #tiles = [];
    #openedAt = 0;
    // the page
    #seenAt = 0;
    // all of it; 0: not yet
    #isReady = false;
    // somebody can have judged it
    /** @type {string | null | undefined} */
    #className = null;
    /** Items that are not shown again: those that cannot be, and those that were not answered. @type {Set<string>} */
    #leave = /* @__PURE__ */ new Set();
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
    constructor(call2, session2, notify2, busy2, closed) {
      this.#call = call2;
      this.#session = session2;
      this.#notify = notify2;
      this.#busy = busy2;
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
      else if (!event.altKey || event.code !== "Enter" && event.code !== "NumpadEnter") return;
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
      this.#title.textContent = items.length ? `${items.length} × ${this.#className}` : "No labels are left to verify here";
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
      const parameters = {
        shown: shown.map((tile) => tile.item),
        wrong: picked.map((tile) => tile.item),
        verdict,
        seconds: (performance.now() - this.#seenAt) / 1e3
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
  };

  // src/help.js
  var KEYS = (
    /** @type {const} */
    [
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
      ["?", "this list"]
    ]
  );
  var STYLE3 = `
  #vouch-keys { position: fixed; left: 16px; bottom: calc(var(--vouch-line, 0px) + 16px); z-index: 20500;
    padding: 14px 18px; border: 1px solid #ffb14a; border-radius: 8px; background: #14171cf2; color: #e8eaed;
    font: 14px/1.45 system-ui, sans-serif; }
  #vouch-keys h2 { margin: 0 0 8px; font-size: 16px; font-weight: 600; color: #ffb14a; }
  #vouch-keys dl { display: grid; grid-template-columns: max-content max-content; gap: 2px 14px; margin: 0 0 10px; }
  #vouch-keys dt { font-weight: 600; }
  #vouch-keys dd { margin: 0; color: #c3c9d2; }
  #vouch-keys button { padding: 6px 14px; border: 0; border-radius: 6px; background: #ffb14a; color: #14171c;
    font: inherit; font-weight: 600; cursor: pointer; }`;
  var KeyHelp = class {
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
  };

  // src/keys.js
  var WITH_ALT = Object.freeze({
    Enter: "submit",
    NumpadEnter: "submit",
    KeyB: "bad_box",
    KeyN: "reject",
    Backspace: "reject",
    KeyS: "skip",
    KeyZ: "undo",
    KeyT: "take",
    KeyG: "grid",
    KeyD: "draw",
    KeyM: "unlock",
    KeyH: "hint",
    Digit0: "type_class",
    Numpad0: "type_class"
  });
  var WITHOUT_ALT = Object.freeze({ ArrowLeft: "previous", ArrowRight: "next" });
  var HINT = "H what the models say";
  var WHILE_TYPING = /* @__PURE__ */ new Set(["Enter", "NumpadEnter"]);
  function actionOf(event, { inField, inWholeClass, isItemShown }) {
    if (event.ctrlKey || event.metaKey || event.shiftKey || event.getModifierState("AltGraph")) return null;
    if (!event.altKey) {
      const name = !inField && isItemShown && Object.hasOwn(WITHOUT_ALT, event.code) && WITHOUT_ALT[event.code];
      return name ? { name } : null;
    }
    if (inField && !inWholeClass && !WHILE_TYPING.has(event.code)) return null;
    const digit = event.code.match(/^(?:Digit|Numpad)([1-9])$/);
    if (digit) return { name: "class", place: Number(digit[1]) - 1 };
    return Object.hasOwn(WITH_ALT, event.code) ? { name: WITH_ALT[event.code] } : null;
  }
  function keyHints(item, classes, isDrawing) {
    const names = classes.slice(0, 9).map((name, place) => `${place + 1} ${name}`);
    if (classes.length > names.length) names.push("0 type a class");
    if (isDrawing) {
      const what = item.class_name ? `a ${item.class_name}` : "an object";
      return [`Drag a box around ${what} that none shows`, "Alt+ Enter submits it with your answer", ...names];
    }
    if (item.kind !== "label")
      return ["Alt+ D draw", "Enter done", HINT, "S skip", "Z undo", "class of the box:", ...names, "? all keys"];
    const mask = item.masked ? ["M free the box to move it"] : [];
    return [
      "Alt+ Enter as shown",
      "N no object",
      "B bad box",
      ...mask,
      "D draw",
      HINT,
      "S skip",
      "Z undo",
      ...names,
      "? all keys"
    ];
  }

  // src/labels.js
  var Labels = class {
    isDrawing = false;
    #isSelected = false;
    #clickedAt = 0;
    /** Labels that were drawn, and that have got a class. @type {Set<string>} */
    #named = /* @__PURE__ */ new Set();
    #app;
    #edits;
    #notify;
    /**
     * @param {import("./app.js").App} app
     * @param {Pick<import("./edits.js").Edits, "made">} edits
     * @param {import("./types.js").Notify} notify
     */
    constructor(app, edits2, notify2) {
      this.#app = app;
      this.#edits = edits2;
      this.#notify = notify2;
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
  };

  // src/leases.js
  var Leases = class {
    #lastSign = Date.now();
    #call;
    #session;
    #notify;
    /**
     * @param {import("./types.js").Call} call
     * @param {import("./session.js").Session} session
     * @param {import("./types.js").Notify} notify
     */
    constructor(call2, session2, notify2) {
      this.#call = call2;
      this.#session = session2;
      this.#notify = notify2;
    }
    /** A key or a pointer: somebody works. */
    sign() {
      this.#lastSign = Date.now();
    }
    /** Renews the leases, to be called now and then. */
    async renew() {
      if (!this.#session.items.length) return;
      if (Date.now() - this.#lastSign < IDLE_MS) {
        try {
          const { lost } = await this.#call("renew");
          if (lost) this.#notify(`${lost} items were given to somebody else, as your lease had run out`, true);
        } catch (error) {
          this.#notify(error instanceof Error ? error.message : String(error), true);
        }
      } else if (Date.now() > this.#session.leasedUntil) {
        this.#notify(
          "Your lease ran out: others may take these items. What you submit counts as long as nobody has.",
          true
        );
      }
    }
  };

  // src/line.js
  var STYLE4 = `
  #vouch-line { position: fixed; left: 50%; bottom: 4px; transform: translateX(-50%); z-index: 20000; display: none;
    max-width: 96vw; padding: 4px 14px; border-radius: 6px; background: #14171cee; color: #e8eaed;
    font: 14px/1.35 system-ui, sans-serif; pointer-events: none; text-align: center; }
  #vouch-line b { color: #ffb14a; font-weight: 600; }
  #vouch-line .key { white-space: nowrap; }
  #vouch-line .note { display: block; min-height: 1.35em; }
  #vouch-line .keys, #vouch-line .count { color: #aab1bd; }
  #vouch-line .message { color: #9fe0b5; }
  #vouch-line .wrong { color: #ff9c93; }`;
  var Line = class {
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
      const parts = [];
      if (item) {
        parts.push(make("b", "", item.ask));
        if (hint) parts.push(make("span", "hint", ` ${hint}`));
        parts.push(make("span", "count", `  ${left} left`));
        parts.push(make("br"), keyLine(keyHints(item, classes, isDrawing)));
      }
      const message = isBroken ? CANNOT_BE_SHOWN : this.message;
      const isWrong = isBroken || this.#isWrong;
      if (item || message) parts.push(make("span", `note ${isWrong ? "wrong" : "message"}`, message));
      this.element.replaceChildren(...parts);
      this.element.style.display = parts.length ? "block" : "none";
      document.documentElement.style.setProperty("--vouch-line", item ? `${this.element.offsetHeight}px` : "0px");
    }
  };
  function keyLine(keys) {
    const all = make("span", "keys");
    for (const text of keys) all.append(...all.firstChild ? [" · "] : [], make("span", "key", text));
    return all;
  }

  // src/navigation.js
  var Navigation = class {
    /** The item that the App was asked to open; null: it has come. @type {string | null} */
    #coming = null;
    #askedAt = 0;
    #app;
    #session;
    #pictures;
    #now;
    /**
     * @param {Pick<import("./app.js").App, "isItemOpen" | "addressedSample" | "openSample" | "loadSample" | "hasPanels" |
     *   "isAnnotating" | "annotate">} app
     * @param {import("./session.js").Session} session
     * @param {Pick<import("./pictures.js").Pictures, "isPainted" | "hasFailed">} pictures
     * @param {() => number} [now] Milliseconds.
     */
    constructor(app, session2, pictures2, now = () => performance.now()) {
      this.#app = app;
      this.#session = session2;
      this.#pictures = pictures2;
      this.#now = now;
    }
    /** The item that is open; null: none of the session's. */
    shown() {
      return this.#app.isItemOpen() ? this.#session.ofSample(this.#app.addressedSample()) : null;
    }
    /** @param {ItemSummary} item */
    open(item) {
      this.#coming = item.item;
      this.#askedAt = this.#now();
      this.#app.openSample(item.sample);
    }
    /** Opens an item from wherever the App is. @param {ItemSummary} item */
    show(item) {
      if (this.#app.hasPanels()) this.open(item);
      else this.#app.loadSample(item.sample);
    }
    /** Whether the item that was asked for has yet to come: the one before stays on the screen for a while. */
    isComing() {
      this.look();
      return this.#coming !== null;
    }
    /**
     * Looks whether the item that was asked for has come. Where the App's page has failed none ever does, until the page is
     * loaded again.
     *
     * @returns {number} Milliseconds until another look finds more though nothing changes.
     */
    look() {
      if (this.#coming === null) return Number.POSITIVE_INFINITY;
      const left = this.#askedAt + OPENING_MS - this.#now();
      const isThere = this.shown()?.item === this.#coming;
      if (!isThere && left > 0) return left;
      const item = this.#session.item(this.#coming);
      this.#coming = null;
      if (item && !this.#app.isItemOpen()) this.#app.loadSample(item.sample);
      return Number.POSITIVE_INFINITY;
    }
    /**
     * Leaves the tab Explore: whoever has looked into it would find the next items there too, where they cannot be
     * answered.
     *
     * @param {ItemSummary | null} item
     */
    leaveExplore(item) {
      if (this.#app.isAnnotating()) return;
      if (item) this.open(item);
      else this.#app.annotate();
    }
    /**
     * Opens an item again while the App may still open the next: it drops what it is asked meanwhile.
     *
     * @param {ItemSummary} item
     * @param {ItemSummary} next
     */
    async backTo(item, next) {
      await this.#opened(next);
      this.open(item);
      await this.#opened(item);
    }
    /** @param {ItemSummary} item */
    async #opened(item) {
      const isShown = () => this.shown()?.item === item.item && (this.#pictures.isPainted(item) || this.#pictures.hasFailed(item));
      await until(isShown, "", REOPEN_MS).catch(() => null);
      await sleep(CLICK_MS);
    }
  };

  // src/pause.js
  var MISSES = 2;
  var STYLE5 = `
  #vouch-sheet, #vouch-ended { position: fixed; inset: 0; z-index: 19000; display: flex; align-items: center;
    justify-content: center; background: #14171c; color: #e8eaed; font: 16px/1.5 system-ui, sans-serif;
    text-align: center; }
  #vouch-sheet ol { display: inline-block; margin: 0; text-align: left; }
  #vouch-sheet code { padding: 1px 6px; border-radius: 4px; background: #2a303a; color: #ffd9a3; }
  #vouch-ended { z-index: 30000; flex-direction: column; }
  #vouch-sheet h1, #vouch-ended h1 { font-size: 26px; font-weight: 600; }
  #vouch-sheet button, #vouch-ended button { margin: 12px 6px; padding: 10px 18px; border: 1px solid #ffb14a;
    border-radius: 6px; background: none; color: #ffb14a; font: inherit; cursor: pointer; }`;
  var Pause = class {
    element = make("div");
    #call;
    #notify;
    #buttons;
    /**
     * @param {import("./types.js").Call} call
     * @param {import("./types.js").Notify} notify
     * @param {(left: number) => [string, () => unknown][]} buttons What stands on them, and what they do.
     */
    constructor(call2, notify2, buttons) {
      this.#call = call2;
      this.#notify = notify2;
      this.#buttons = buttons;
      this.element.id = "vouch-sheet";
    }
    /** @param {string} title Of the page while something is left. */
    async show(title) {
      const {
        open: left = 0,
        minutes_left: minutes = 0,
        answered_by_me: answered = 0,
        elsewhere = 0,
        certified
      } = await this.#call("session");
      const box = make("div");
      const count = `You have answered ${answered} ${answered === 1 ? "question" : "questions"}`;
      if (left) {
        box.append(make("h1", "", title), make("p", "", `${count}; ${left} are left, about ${Math.ceil(minutes)} min`));
      } else {
        const others = elsewhere ? `; other reviewers still have ${elsewhere}, which come to you if they give them back` : "";
        box.append(make("h1", "", "Nothing is left to ask you: thank you"), make("p", "", `${count}${others}.`));
        const end = document.querySelector("template#vouch-end");
        if (end) box.append(end.content.cloneNode(true));
      }
      if (certified) box.append(make("p", "", `${certified[0].toUpperCase()}${certified.slice(1)}.`));
      for (const [name, action] of this.#buttons(left)) box.append(button(name, action));
      this.element.replaceChildren(box);
      document.body.append(this.element);
      this.#notify("");
    }
    hide() {
      this.element.remove();
    }
  };
  async function watchServer() {
    const ended = make("div");
    ended.id = "vouch-ended";
    ended.setAttribute("role", "alert");
    for (let missed = 0; ; ) {
      await sleep(ALIVE_MS);
      const isThere = await isServed();
      missed = isThere ? 0 : missed + 1;
      if (missed >= MISSES) document.body.append(ended);
      if (ended.isConnected) drawEnded(ended, isThere);
    }
  }
  async function isServed() {
    const asked = (
      /** @type {const} */
      { method: "HEAD", cache: "no-store" }
    );
    const answer = await fetch("/fiftyone", { ...asked, signal: AbortSignal.timeout(ANSWER_MS) }).catch(() => null);
    return answer !== null;
  }
  function drawEnded(ended, isThere) {
    const title = isThere ? "The review answers again" : "The review has ended, or its server cannot be reached";
    if (ended.firstChild?.textContent === title) return;
    const message = isThere ? "Reload to go on." : "Whoever runs it has the next address.";
    const reload = button("Reload", () => location.reload());
    ended.replaceChildren(make("h1", "", title), make("p", "", `What you submitted is kept. ${message}`), reload);
  }

  // src/screen.js
  var Screen = class {
    /** Id of the item; null: none. @type {string | null} */
    item = null;
    /** When its picture, and its label with it, was on the screen; 0: not yet. */
    painted = 0;
    #isReady = false;
    #opened = 0;
    #imagePainted = 0;
    #since = 0;
    #spent = 0;
    #app;
    #pictures;
    #now;
    /**
     * @param {Pick<import("./app.js").App, "isListed" | "isLabelOpen">} app
     * @param {Pick<import("./pictures.js").Pictures, "isPainted" | "isBroken">} pictures
     * @param {() => number} [now] Milliseconds.
     */
    constructor(app, pictures2, now = () => performance.now()) {
      this.#app = app;
      this.#pictures = pictures2;
      this.#now = now;
    }
    /**
     * Looks at the item that the App shows.
     *
     * @param {ItemSummary | null} item
     * @returns {boolean} Whether it is another one than before.
     */
    look(item) {
      const id = item?.item ?? null;
      if (id === this.item) {
        if (item) this.#lookAtPicture(item);
        return false;
      }
      this.item = id;
      this.#isReady = false;
      this.#imagePainted = this.painted = this.#spent = 0;
      this.#opened = this.#since = this.#now();
      document.documentElement.dataset.vouchItem = id ?? "";
      document.documentElement.dataset.vouchReady = "";
      return true;
    }
    /** The time of an item starts when it can be seen. @param {ItemSummary} item */
    #lookAtPicture(item) {
      const now = this.#now();
      if (!this.painted && this.#pictures.isPainted(item)) {
        this.#imagePainted ||= now;
        const isListed2 = !item.label || this.#app.isListed(item.label) || this.#app.isLabelOpen();
        if (isListed2 || now - this.#imagePainted >= LABEL_MS) {
          this.painted = this.#since = now;
          this.#spent = 0;
        }
      }
      if (!this.#isReady && this.painted && now - this.painted >= SEEN_MS) {
        this.#isReady = true;
        document.documentElement.dataset.vouchReady = item.item;
      }
    }
    /** Milliseconds until another look finds more though nothing changes. */
    next() {
      const nothing = this.item === null || this.#isReady || !this.#imagePainted;
      if (nothing) return Number.POSITIVE_INFINITY;
      const time = this.painted ? this.painted + SEEN_MS : this.#imagePainted + LABEL_MS;
      return Math.max(0, time - this.#now());
    }
    /** Whether a look has found that it was painted for long enough to be seen. @param {ItemSummary} item */
    isReady(item) {
      return this.item === item.item && this.#isReady;
    }
    /**
     * Whether a key comes before anybody can have seen the item, as when it is pressed twice: it means the one before.
     *
     * @param {ItemSummary} item
     */
    isTooEarly(item) {
      if (this.isReady(item) || this.#pictures.isBroken(item)) return false;
      return this.item !== item.item || this.painted > 0 || this.#now() - this.#opened < SLOW_MS;
    }
    /** Seconds that somebody has looked at it. */
    seconds() {
      return (this.#spent + (document.hidden ? 0 : this.#now() - this.#since)) / 1e3;
    }
    /** The page was hidden, or is shown again. */
    visibilityChanged() {
      if (document.hidden) this.#spent += this.#now() - this.#since;
      else this.#since = this.#now();
    }
  };

  // src/session.js
  var Session = class {
    /** @type {ItemSummary[]} */
    items = [];
    /** @type {string[]} */
    classes = [];
    queue = "";
    /** When the lease of the items ends, as Date.now() counts. */
    leasedUntil = 0;
    /** Item -> what the models say of it, of those that were asked for. @type {Map<string, string>} */
    hints = /* @__PURE__ */ new Map();
    #newest = 0;
    /**
     * @param {OperatorResult} result
     * @param {number} number Of the request: answers may come in another order than their requests were sent.
     */
    update(result, number) {
      if (result.item && result.hint) this.hints.set(result.item, result.hint);
      if (result.lease_s) this.leasedUntil = Date.now() + result.lease_s * 1e3;
      if (number < this.#newest) return;
      this.#newest = number;
      if (result.items) this.items = result.items;
      if (result.classes) this.classes = result.classes;
      if (result.queue) this.queue = result.queue;
    }
    /** @param {string | null | undefined} id */
    item(id) {
      return this.items.find((one) => one.item === id) ?? null;
    }
    /** @param {string | null} sample */
    ofSample(sample) {
      return this.items.find((one) => one.sample === sample) ?? null;
    }
    /**
     * @param {ItemSummary} item
     * @param {number} by 1: the next one, -1: the one before.
     */
    beside(item, by) {
      return this.items[this.items.findIndex((one) => one.item === item.item) + by] ?? null;
    }
    /**
     * The address of an image.
     *
     * @param {string} key
     */
    source(key) {
      return `/media?filepath=${encodeURIComponent(`/vouch/${this.queue}/${key}`)}`;
    }
  };

  // src/main.js
  var MESSAGE = "vouch-message";
  var LOADED_AGAIN = "vouch-loaded-again";
  var session = new Session();
  var call = operators(session, datasetName);
  var source = (key) => session.source(key);
  var notify = (message, isWrong = false) => line.notify(message, isWrong);
  var line = new Line(() => {
    const item = navigation.shown();
    const isBroken = item !== null && pictures.isBroken(item);
    const hint = item ? session.hints.get(item.item) : void 0;
    return { item, hint, isBroken, isDrawing: labels.isDrawing, classes: session.classes, left: session.items.length };
  });
  var busy = new Busy(notify, changed);
  var pictures = new Pictures(app_exports, source, changed);
  var edits = new Edits(app_exports);
  var labels = new Labels(app_exports, edits, notify);
  var navigation = new Navigation(app_exports, session, pictures);
  var screen = new Screen(app_exports, pictures);
  var leases = new Leases(call, session, notify);
  var cover = new Cover();
  var help = new KeyHelp(cover.reviewer, localStorage);
  var pause = new Pause(call, notify, (left) => [
    [left ? "Take a batch (Alt+T)" : "Look again (Alt+T)", actions.take],
    ...left ? [
      /** @type {[string, () => unknown]} */
      ["Crop grid (Alt+G)", actions.grid]
    ] : [],
    ["Undo (Alt+Z)", actions.undo]
  ]);
  var answering = new Answering({
    app: app_exports,
    call,
    session,
    busy,
    navigation,
    screen,
    pictures,
    edits,
    labels,
    pause,
    show,
    notify
  });
  var grid = null;
  var isPanelOpened = false;
  var panelAskedAt = Number.NEGATIVE_INFINITY;
  var inAppGrid = null;
  var lookSoon = () => {
  };
  var isStarted = false;
  var isLoadingAgain = false;
  var uncoverAt = Number.POSITIVE_INFINITY;
  var actions = {
    submit: () => answering.answer("submit"),
    bad_box: () => answering.answer("bad_box"),
    reject: () => answering.answer("reject"),
    hint: () => answering.hint(),
    skip: () => answering.answer("skip"),
    undo: () => answering.undo(),
    take: () => answering.take(),
    giveBack: () => answering.giveBack(),
    previous: () => answering.step(-1),
    next: () => answering.step(1),
    class: (place = 0) => answering.pickClass(place),
    type_class: () => busy.run(() => labels.typeClass()),
    draw: () => busy.run(() => labels.drawBox()),
    unlock: () => busy.run(() => labels.unlockBox(navigation.shown())),
    grid: () => busy.run(openGrid)
  };
  function show(item) {
    cover.show("Opening the next items …");
    pause.hide();
    navigation.show(item);
  }
  function changed() {
    line.draw();
    lookSoon();
  }
  async function openGrid() {
    await edits.saved();
    if (isItemOpen()) closeSample();
    grid = new CropGrid(call, session, notify, busy, gridClosed);
    await grid.open();
  }
  function gridClosed() {
    sessionStorage.setItem(MESSAGE, line.message);
    loadDataset();
  }
  function look() {
    const item = navigation.shown();
    const panelAgain = openPanelOnce();
    if (screen.look(item)) {
      labels.itemChanged();
      if (item) pictures.look(item);
      navigation.leaveExplore(item);
      line.draw();
    }
    uncover(item);
    reloadAppGrid();
    recover();
    let again = Math.min(screen.next(), panelAgain, busy.isBusy || grid ? Number.POSITIVE_INFINITY : navigation.look());
    if (item && !busy.isBusy) {
      if (screen.painted) again = Math.min(again, labels.selectInQuestion(item));
      const name = labels.classOfNewBox(item);
      if (name) busy.run(() => labels.setClass(name));
    }
    return again;
  }
  function uncover(item) {
    const isPage = pause.element.isConnected || grid !== null || performance.now() > uncoverAt;
    const isAppAsked = isStarted && !busy.isBusy && addressedSample() === null && isPanelOpened;
    if (item && (screen.painted || pictures.isBroken(item))) {
      cover.hide();
      help.showFirst();
    } else if (isPage || isAppAsked) cover.hide();
  }
  async function recover() {
    const failedBefore = Date.now() - Number(sessionStorage.getItem(LOADED_AGAIN)) < AGAIN_MS;
    if (!isStarted || isLoadingAgain || failedBefore || busy.isBusy || grid || !hasFailed()) return;
    isLoadingAgain = true;
    if (await isServed()) {
      sessionStorage.setItem(LOADED_AGAIN, String(Date.now()));
      const [first] = session.items;
      if (first) loadSample(first.sample);
      else loadDataset();
    }
    isLoadingAgain = false;
  }
  function openPanelOnce() {
    isPanelOpened ||= isPanelShown();
    const isItemAsked = isItemOpen() || addressedSample() !== null;
    if (isPanelOpened || isItemAsked || !isGridShown()) return Number.POSITIVE_INFINITY;
    if (performance.now() - panelAskedAt >= CLICK_MS) {
      panelAskedAt = performance.now();
      openPanel();
    }
    return CLICK_MS;
  }
  function reloadAppGrid() {
    if (isItemOpen() || busy.isBusy || grid || !isPanelOpened || navigation.isComing()) return;
    const samples = session.items.map((item) => item.sample).join();
    if (inAppGrid !== null && inAppGrid !== samples && samples && isGridShown()) reloadSamples();
    inAppGrid = samples;
  }
  function onKey(event) {
    leases.sign();
    if (!event.altKey) edits.made();
    if (grid) return;
    if (helpKey(event)) return;
    const target = event.target;
    const inField = isField(target);
    const inWholeClass = isClassList(target) && target instanceof HTMLInputElement && ["", ...session.classes].includes(target.value);
    const action = actionOf(event, { inField, inWholeClass, isItemShown: navigation.shown() !== null });
    if (!action) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    if (!event.repeat) actions[action.name](action.place);
  }
  function helpKey(event) {
    const isToggle = event.key === "?" && !event.altKey && !event.ctrlKey && !event.metaKey && !isField(event.target);
    if (!isToggle && !(event.code === "Escape" && help.isShown)) return false;
    if (isToggle) help.toggle();
    else help.hide();
    event.preventDefault();
    event.stopImmediatePropagation();
    return true;
  }
  function onPointer() {
    leases.sign();
    edits.made();
  }
  function listen() {
    window.addEventListener("keydown", onKey, { capture: true });
    window.addEventListener("keyup", leaveListOnEscape, { capture: true });
    for (const sign of ["pointerdown", "pointerup", "wheel"]) {
      window.addEventListener(sign, onPointer, { capture: true, passive: true });
    }
    document.addEventListener("visibilitychange", () => screen.visibilityChanged());
    pictures.watch();
    lookSoon = watchPage(look);
    setInterval(() => leases.renew(), RENEW_MS);
    watchServer();
  }
  async function start() {
    document.head.append(make("style", "", [STYLE, STYLE4, STYLE5, STYLE2, STYLE3].join("\n")));
    document.body.append(line.element);
    listen();
    registerInBrowser(actions);
    if (!isAnnotating()) annotate();
    try {
      await call("session");
      if (!session.items.length) await pause.show("A pause");
      notify(sessionStorage.getItem(MESSAGE) || "");
      sessionStorage.removeItem(MESSAGE);
    } catch (error) {
      notify(error instanceof Error ? error.message : String(error), true);
      cover.hide();
    }
    isStarted = true;
    uncoverAt = performance.now() + LOAD_MS;
    setTimeout(() => lookSoon(), LOAD_MS);
    lookSoon();
  }
  start();
})();
