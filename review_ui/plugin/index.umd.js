// Keys of the review in FiftyOne's App: answer, go on to the next item, keep the leases while somebody works.
//
// The App has no keys for plugins, so key presses are caught before it sees them; Alt+, because it uses bare letters.
// Answers go to the operators of @vouch/review, whose results list what is on the desk. The crop grid is in
// grid/index.umd.js, what is known of the pictures in pictures/index.umd.js.
(function () {
  "use strict";

  const PLUGIN = "@vouch/review";
  const SETTLE_MS = 60_000; // for the App to save an edit
  const CLICK_MS = 400;
  const OPEN_FRAMES = 600;
  const EDIT_MS = 250;
  const BEAT_MS = 60_000;
  const ALIVE_MS = 3_000; // between questions whether the server is there
  const ANSWER_MS = 30_000; // for its answer: one that has ended refuses at once, a busy one takes its time
  const MISSES = 2;
  const LOAD_MS = 8_000; // for an image to come
  const OPENING_MS = 5_000; // for the App to begin to show what it was asked to
  const SLOW_MS = 1_000; // from here on people are told that an item is not painted, and may skip it
  const LABEL_MS = 500; // a label that the App has not listed so long after the image was deleted
  const SEEN_MS = 150; // in less nobody judges what has been painted
  const IDLE_MS = 5 * 60_000; // without a sign of life leases are not renewed any more

  const SAID = "vouch-said";
  const ANNOTATE = "annotate"; // the App's mode in which labels can be changed

  const desk = { cards: [], classes: [], queue: "", until: 0 };
  const view = {
    item: null, since: 0, spent: 0, busy: false, grid: null, selected: false, drawing: false, clicked: 0, edited: 0,
    panel: false, gridShows: null, named: new Set(),
    coming: null, asked: 0, // the item that the App was asked to open, and when
    opened: 0, image: 0, painted: 0, // when the item, its image, and its label with it were on the screen; 0: not yet
  };
  let pictures = null;
  let lastSign = Date.now();

  // ---- the server

  async function call(name, params = {}) {
    const answer = await fetch("/operators/execute", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ operator_uri: `${PLUGIN}/${name}`, dataset_name: datasetName(), params }),
    }).catch(() => null);
    if (!answer) throw new Error("the review's server does not answer; is `vouch review` still running?");
    const said = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Error(said.error || said.detail || `the review's server refused this (${answer.status})`);
    const result = said.result || {};
    if (result.cards) desk.cards = result.cards;
    if (result.classes) desk.classes = result.classes;
    if (result.queue) desk.queue = result.queue;
    if (result.lease_s) desk.until = Date.now() + result.lease_s * 1000;
    if (said.error_message || said.error || result.error) {
      throw new Error(result.error || said.error_message || "this failed; the log of the review says why");
    }
    return result;
  }

  function datasetName() {
    const found = location.pathname.match(/\/datasets\/([^/?]+)/);
    return found ? decodeURIComponent(found[1]) : "";
  }

  // ---- the App

  const find = (name) => document.querySelector(`[data-cy="${name}"]`);
  const app = (name, params = {}) => window.__foo__.executeOperator(name, params);
  const modalIsOpen = () => Boolean(find("modal"));
  const sleep = (time) => new Promise((done) => setTimeout(done, time));
  const frame = () => new Promise((done) => requestAnimationFrame(() => done()));

  function cardShown() {
    const sample = new URL(location.href).searchParams.get("id");
    return modalIsOpen() ? desk.cards.find((card) => card.sample === sample) || null : null;
  }

  // What is typed into the App's fields is taken when they lose the focus. An edit is on its way for a moment before
  // the App says that it is not saved; then it saves, and says so.
  async function settled() {
    if (isTyping(document.activeElement)) {
      document.activeElement.blur();
      view.edited = performance.now();
    }
    await sleep(Math.max(0, view.edited + EDIT_MS - performance.now()));
    const end = Date.now() + SETTLE_MS;
    while (find("annotation-save-state")?.dataset.settled === "false") {
      if (Date.now() > end) throw new Error("your edit is not saved yet; wait a moment, and submit again");
      await sleep(15);
    }
  }

  function open(card) {
    view.coming = card.item;
    view.asked = performance.now();
    app("open_sample", { id: card.sample, mode: ANNOTATE });
  }

  // Whoever has looked into the tab Explore would find the next items there too, where they cannot be answered.
  function leaveExplore(card) {
    const { jotaiStore, modalMode } = window.__fos__;
    if (jotaiStore.get(modalMode) === ANNOTATE) return;
    if (card) open(card);
    else jotaiStore.set(modalMode, ANNOTATE);
  }

  // The item before stays in the address, and on the screen, for a while.
  function isComing() {
    if (view.coming === null) return false;
    if (cardShown()?.item === view.coming || performance.now() - view.asked > OPENING_MS) view.coming = null;
    return view.coming !== null;
  }

  // Of an empty dataset the App shows a page of its own, which only loading anew leaves.
  function show(card) {
    sheet.remove();
    if (!find("panel-container")) return location.assign(`${location.pathname}?id=${card.sample}`);
    open(card);
  }

  // The App opens panels only while no item is open.
  function openPanelOnce() {
    if (view.panel || modalIsOpen() || !find("panel-tab-samples")) return;
    view.panel = true;
    app("open_panel", { name: "review_queue", isActive: true, layout: "horizontal" });
  }

  // ---- answering

  async function guarded(work) {
    if (view.busy) return;
    view.busy = true;
    document.documentElement.dataset.vouchBusy = "true";
    try {
      await work();
    } catch (error) {
      say(error.message, true);
    } finally {
      view.busy = false;
      document.documentElement.dataset.vouchBusy = "false";
      draw();
    }
  }

  function isReady(card) {
    return view.item === card.item && view.painted > 0 && performance.now() - view.painted >= SEEN_MS;
  }

  // A key that comes before anybody can have seen the item, as when it is pressed twice, means the one before.
  function isTooEarly(card) {
    if (isComing()) return true;
    if (!card || isReady(card) || pictures.isBroken(card)) return false;
    return view.item !== card.item || view.painted > 0 || performance.now() - view.opened < SLOW_MS;
  }

  function answer(name, params = {}) {
    return guarded(async () => {
      const card = cardShown();
      if (isTooEarly(card)) return;
      if (!card) throw new Error("open an item first: Alt+T takes a batch");
      if (name !== "skip" && !isReady(card)) await unseen(card);
      await settled();
      const seconds = secondsSpent();
      const next = beside(card, 1) || beside(card, -1);
      say("");
      // The next item opens while this one is handed in: what counts is saved, and does not change any more.
      if (next) open(next);
      try {
        await call(name, { item: card.item, seconds, ...params });
      } catch (error) {
        if (next && desk.cards.some((one) => one.item === card.item)) await backTo(card, next);
        throw error;
      }
      if (next) return;
      app("close_sample");
      await pause("This batch is done");
    });
  }

  // The App drops what it is asked while it opens another item.
  async function backTo(card, next) {
    await opened(next);
    open(card);
    await opened(card);
    view.selected = false;
    view.clicked = 0;
  }

  async function opened(card) {
    const isShown = () => cardShown()?.item === card.item && (pictures.isPainted(card) || pictures.hasFailed(card));
    await until(isShown, "", OPEN_FRAMES).catch(() => null);
    await sleep(CLICK_MS);
  }

  const beside = (card, by) => desk.cards[desk.cards.findIndex((one) => one.item === card.item) + by];

  function take() {
    return guarded(async () => {
      await settled();
      const result = await call("take_batch");
      if (!desk.cards.length) return pause("Nothing is left to review for you: thank you");
      say(result.taken ? `${result.taken} items taken` : "this batch is not done yet");
      show(desk.cards[0]);
    });
  }

  function undo() {
    return guarded(async () => {
      if (isTooEarly(cardShown())) return;
      await settled();
      const result = await call("undo");
      const card = desk.cards.find((one) => one.item === result.item);
      say(`Taken back: ${result.said}`);
      if (card) show(card);
    });
  }

  function giveBack() {
    return guarded(async () => {
      await settled();
      const result = await call("give_back");
      app("close_sample");
      await pause(`${result.returned} items given back`);
    });
  }

  function step(by) {
    return guarded(async () => {
      if (isComing()) return;
      const card = cardShown();
      await settled();
      const next = beside(card, by);
      if (next) open(next);
    });
  }

  function pickClass(place) {
    const name = desk.classes[place];
    const card = cardShown();
    if (!name || !card) return;
    if (card.kind === "label" && !isNewBoxSelected(card)) answer("wrong_class", { class_name: name });
    else guarded(() => labelSelected(name));
  }

  // ---- images that cannot be shown

  const CANNOT_BE_SHOWN = "this image cannot be shown: skip it (Alt+S)";

  // Says why an item that is not painted cannot be answered. The App does not ask again for an image that did not come.
  async function unseen(card) {
    leaveExplore(card);
    const state = await Promise.race([pictures.look(card).done, sleep(LOAD_MS)]);
    if (state === "broken") throw new Error(CANNOT_BE_SHOWN);
    if (state === "shown" && pictures.hasFailed(card)) location.assign(`${location.pathname}?id=${card.sample}`);
    throw new Error("the image has not come yet: wait a moment, or skip it (Alt+S)");
  }

  // ---- boxes that were drawn

  // The form of a selected label shows its id; the question's own label has the card's.
  function selectedLabel() {
    const form = find("annotate-edit-back") && find("root_label_container")?.closest(".form-group")?.parentElement;
    const text = form ? find("modal").innerText : "";
    const found = text.match(/\bid:\s*([0-9a-f]{24})\b/);
    return found ? found[1] : null;
  }

  const isNewBoxSelected = (card) => ![null, card.label].includes(selectedLabel());

  async function until(found, trouble, tries = 60) {
    for (; tries > 0; tries--) {
      const result = found();
      if (result) return result;
      await frame();
    }
    throw new Error(trouble);
  }

  function classList() {
    const list = find("root_label_container")?.querySelector("input[role=combobox]");
    if (!list) throw new Error("select a box first: click it");
    list.focus();
    return list;
  }

  // For campaigns of more classes than there are numbers: type a part of the name, Enter takes it.
  function typeClass() {
    return guarded(async () => {
      const list = classList();
      list.click();
      list.select();
    });
  }

  async function labelSelected(name) {
    const list = classList();
    list.click();
    const option = await until(
      () => [...document.querySelectorAll("[role=option]")].find((one) => one.textContent.trim() === name),
      `choose ${name} in the list on the right`,
    );
    // The list takes a press, not a click.
    for (const kind of ["pointerdown", "mousedown", "pointerup", "mouseup", "click"]) {
      const Kind = kind.startsWith("pointer") ? PointerEvent : MouseEvent;
      option.dispatchEvent(new Kind(kind, { bubbles: true, cancelable: true, button: 0 }));
    }
    await until(() => list.value === name, `choose ${name} in the list on the right`);
    view.edited = performance.now();
    await frame();
    document.activeElement?.blur();
  }

  // A label that has just been drawn gets the class of the one before it; where one class is looked for, that one.
  function nameNewBox(card) {
    const id = selectedLabel();
    if (!id || id === card.label || view.named.has(id)) return;
    view.named.add(id);
    const shown = find("root_label_container")?.querySelector("input")?.value;
    if (card.kind !== "label" && card.class_name && shown !== card.class_name) {
      guarded(() => labelSelected(card.class_name));
    }
  }

  // The App marks no label out; the one that is selected stands out, and is ready to be changed.
  function selectQuestion(card) {
    if (!card.label || view.selected || !view.painted) return;
    if (selectedLabel() === card.label) view.selected = true;
    else if (find("annotate-edit-back")) return;
    // While the App still loads, a click may be lost.
    else if (performance.now() - view.clicked > CLICK_MS) {
      view.clicked = performance.now();
      find(`annotate-label-${card.label}`)?.click();
    }
  }

  async function unselect() {
    find("annotate-edit-back")?.click();
    await until(() => !find("annotate-edit-back"), "close the label on the right first");
  }

  function drawBox() {
    return guarded(async () => {
      if (find("annotate-edit-back")) await unselect();
      (await until(() => find("detection-mode"), "open an item first")).click();
      view.drawing = true;
    });
  }

  // A box with a mask cannot be moved.
  function unlockBox() {
    return guarded(async () => {
      const card = cardShown();
      if (selectedLabel() === null && card?.label) find(`annotate-label-${card.label}`)?.click();
      (await until(() => find("label-menu-trigger"), "select a box first: click it")).click();
      (await until(() => find("label-menu-remove-mask"), "this box has no mask: move it as it is")).click();
      view.edited = performance.now();
      say("The mask is removed: move the box, or Ctrl+Z brings the mask back.");
    });
  }

  // ---- keys

  const KEYS = {
    Enter: () => answer("submit"),
    NumpadEnter: () => answer("submit"),
    KeyB: () => answer("bad_box"),
    KeyN: () => answer("reject"),
    Backspace: () => answer("reject"),
    KeyS: () => answer("skip"),
    KeyZ: undo,
    KeyT: take,
    KeyG: () => openGrid(),
    KeyD: drawBox,
    Digit0: typeClass,
    Numpad0: typeClass,
    KeyM: unlockBox,
  };
  const WHILE_TYPING = new Set(["Enter", "NumpadEnter"]); // Alt and a letter writes a sign on some keyboards

  function isTyping(element) {
    return Boolean(element) && (element.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(element.tagName));
  }

  // The list of classes takes letters, but with none half typed there is nothing that keys could break.
  function isWholeClass(element) {
    const inList = element.matches("input[role=combobox]") && element.closest("[data-cy=root_label_container]");
    return Boolean(inList) && (element.value === "" || desk.classes.includes(element.value));
  }

  // Once Esc leaves the list, the focus goes back to the page.
  function leaveList(event) {
    if (event.code === "Escape" && event.target.matches?.("input[role=combobox]")) event.target.blur();
  }

  function onPointer() {
    lastSign = Date.now();
    view.edited = performance.now();
  }

  function onKey(event) {
    lastSign = Date.now();
    if (!event.altKey) view.edited = performance.now();
    if (view.grid || event.ctrlKey || event.metaKey || event.shiftKey || event.getModifierState("AltGraph")) return;
    const typing = isTyping(event.target) && !isWholeClass(event.target);
    let action = null;
    if (event.altKey) {
      if (typing && !WHILE_TYPING.has(event.code)) return;
      const digit = event.code.match(/^(?:Digit|Numpad)([1-9])$/);
      action = digit ? () => pickClass(Number(digit[1]) - 1) : KEYS[event.code];
    } else if (!isTyping(event.target) && cardShown() && /^Arrow(Left|Right)$/.test(event.code)) {
      action = () => step(event.code === "ArrowRight" ? 1 : -1);
    }
    if (!action) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    if (!event.repeat) action();
  }

  // ---- the line of hints

  const line = document.createElement("div");
  line.id = "vouch-line";
  line.setAttribute("role", "status");
  const style = document.createElement("style");
  style.textContent = `
    #vouch-line { position: fixed; left: 50%; bottom: 4px; transform: translateX(-50%); z-index: 20000; display: none;
      max-width: 96vw; padding: 4px 14px; border-radius: 6px; background: #14171cee; color: #e8eaed;
      font: 14px/1.35 system-ui, sans-serif; pointer-events: none; text-align: center; }
    #vouch-sheet, #vouch-ended { position: fixed; inset: 0; z-index: 19000; display: flex; align-items: center; justify-content: center;
      background: #14171c; color: #e8eaed; font: 16px/1.5 system-ui, sans-serif; text-align: center; }
    #vouch-ended { z-index: 30000; flex-direction: column; }
    #vouch-sheet h1, #vouch-ended h1 { font-size: 26px; font-weight: 600; }
    #vouch-sheet button, #vouch-ended button { margin: 12px 6px; padding: 10px 18px; border: 1px solid #ffb14a; border-radius: 6px;
      background: none; color: #ffb14a; font: inherit; cursor: pointer; }
    #vouch-line b { color: #ffb14a; font-weight: 600; }
    #vouch-line .key { white-space: nowrap; }
    #vouch-line .note { display: block; min-height: 1.35em; }
    #vouch-line .keys, #vouch-line .count { color: #aab1bd; }
    #vouch-line .said { color: #9fe0b5; }
    #vouch-line .wrong { color: #ff9c93; }
    [data-cy=modal] { box-sizing: border-box; padding-bottom: var(--vouch-line, 0); }
    [data-cy=modal-content] { height: calc(100% - 76px) !important; }
    span:has(> [data-cy=nav-left-button]), span:has(> [data-cy=nav-right-button]) { display: none !important; }`;

  let message = { words: "", wrong: false };

  function say(words, wrong = false) {
    message = { words, wrong };
    draw();
  }

  function element(tag, name, text) {
    const made = document.createElement(tag);
    if (name) made.className = name;
    made.textContent = text;
    return made;
  }

  function keysOf(card) {
    const names = desk.classes.slice(0, 9).map((name, place) => `${place + 1} ${name}`);
    if (desk.classes.length > names.length) names.push("0 type a class");
    if (view.drawing) {
      const what = card.class_name ? `a ${card.class_name}` : "an object";
      return [`Drag a box around ${what} that none shows`, "Alt+ Enter submits it with your answer", ...names];
    }
    if (card.kind !== "label") return ["Alt+ D draw", "Enter done", "S skip", "Z undo", "class of the box:", ...names];
    const mask = card.masked ? ["M free the box to move it"] : [];
    return ["Alt+ Enter as shown", "N no object", "B bad box", ...mask, "D draw", "S skip", "Z undo", ...names];
  }

  function keyLine(keys) {
    const all = element("span", "keys", "");
    for (const words of keys) all.append(...(all.firstChild ? [" \u00b7 "] : []), element("span", "key", words));
    return all;
  }

  function draw() {
    const card = cardShown();
    const parts = [];
    if (card) {
      parts.push(element("b", "", card.ask));
      if (card.why) parts.push(element("span", "", ` ${card.why}`));
      parts.push(element("span", "count", `  ${desk.cards.length} left`));
      parts.push(document.createElement("br"), keyLine(keysOf(card)));
    }
    const broken = card && pictures?.isBroken(card);
    const note = broken ? { words: CANNOT_BE_SHOWN, wrong: true } : message;
    // Its space is kept without words too, so that the picture keeps its height.
    if (card || note.words) parts.push(element("span", `note ${note.wrong ? "wrong" : "said"}`, note.words));
    line.replaceChildren(...parts);
    line.style.display = parts.length ? "block" : "none";
    document.documentElement.style.setProperty("--vouch-line", card ? `${line.offsetHeight}px` : "0px");
  }

  // ---- the sheet over an empty desk

  const sheet = document.createElement("div");
  sheet.id = "vouch-sheet";

  async function pause(title) {
    const { open: left, minutes_left: minutes } = await call("desk");
    const box = document.createElement("div");
    box.append(element("h1", "", title));
    box.append(element("p", "", left ? `${left} questions are left, about ${Math.ceil(minutes)} min` : "Nothing is left to ask you now."));
    for (const [name, keys, action] of [["Take a batch", "Alt+T", take], ["Crop grid", "Alt+G", openGrid], ["Undo", "Alt+Z", undo]]) {
      const button = element("button", "", `${name} (${keys})`);
      button.addEventListener("click", action);
      box.append(button);
    }
    sheet.replaceChildren(box);
    document.body.append(sheet);
    say("");
  }

  // ---- the end of the review

  const ended = document.createElement("div");
  ended.id = "vouch-ended";
  ended.setAttribute("role", "alert");

  async function isServed() {
    const asked = { method: "HEAD", cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS) };
    return Boolean(await fetch("/fiftyone", asked).catch(() => null));
  }

  // Without its server the App falls into an error page, which it does not leave by itself.
  async function watchServer() {
    for (let missed = 0; ; ) {
      await sleep(ALIVE_MS);
      const isThere = await isServed();
      missed = isThere ? 0 : missed + 1;
      if (missed >= MISSES) document.body.append(ended);
      if (ended.isConnected) showEnded(isThere);
    }
  }

  function showEnded(isThere) {
    const title = isThere ? "The review answers again" : "The review has ended, or its server cannot be reached";
    if (ended.firstChild?.textContent === title) return;
    const reload = element("button", "", "Reload");
    reload.addEventListener("click", () => location.reload());
    const words = isThere ? "Reload to go on." : "Whoever runs it has the next address.";
    ended.replaceChildren(element("h1", "", title), element("p", "", `What you submitted is kept. ${words}`), reload);
  }

  // ---- time

  function secondsSpent() {
    const now = performance.now();
    return (view.spent + (document.hidden ? 0 : now - view.since)) / 1000;
  }

  function watchItem() {
    const card = cardShown();
    const item = card ? card.item : null;
    openPanelOnce();
    if (item === view.item) watchPicture(card);
    if (card && !view.busy) {
      selectQuestion(card);
      nameNewBox(card);
    }
    keepGrid();
    if (item === view.item) return;
    view.item = item;
    document.documentElement.dataset.vouchItem = item || "";
    document.documentElement.dataset.vouchReady = "";
    view.selected = false;
    view.drawing = false;
    view.clicked = 0;
    view.image = view.painted = view.spent = 0;
    view.opened = view.since = performance.now();
    if (card) pictures.look(card);
    leaveExplore(card);
    draw();
  }

  // The time of an item begins when it can be seen.
  function watchPicture(card) {
    if (!card) return;
    const now = performance.now();
    if (!view.painted && pictures.isPainted(card)) {
      view.image ||= now;
      const isListed = !card.label || find(`annotate-label-${card.label}`) || find("annotate-edit-back");
      if (isListed || now - view.image > LABEL_MS) {
        view.painted = view.since = now;
        view.spent = 0;
      }
    }
    if (isReady(card)) document.documentElement.dataset.vouchReady = card.item;
  }

  // The grid shows what it has loaded: what was answered meanwhile leaves it when people come back.
  function keepGrid() {
    if (modalIsOpen() || view.busy || view.grid) return;
    const now = desk.cards.map((card) => card.sample).join();
    if (view.gridShows !== null && view.gridShows !== now && now && find("panel-tab-samples")) app("reload_samples");
    view.gridShows = now;
  }

  function onHidden() {
    if (document.hidden) view.spent += performance.now() - view.since;
    else view.since = performance.now();
  }

  async function beat() {
    if (!desk.cards.length) return;
    if (Date.now() - lastSign < IDLE_MS) {
      try {
        const result = await call("renew");
        if (result.lost) say(`${result.lost} items were given to somebody else, as your lease had run out`, true);
      } catch (error) {
        say(error.message, true);
      }
    } else if (Date.now() > desk.until) {
      say("Your lease ran out: others may take these items. What you submit counts as long as nobody has.", true);
    }
  }

  // ---- the crop grid

  async function openGrid() {
    await guarded(async () => {
      await settled();
      const { cropGrid } = await import(new URL("grid/index.umd.js", scriptBase));
      if (modalIsOpen()) app("close_sample");
      view.grid = cropGrid({ call, desk, say, source, busy: guarded, closed: gridClosed });
      await view.grid.next();
    });
  }

  // The crops stay on the desk until they are answered or given back. The App's grid and panel show what was there
  // before, so the page is loaded anew; what was said last is kept.
  function gridClosed() {
    sessionStorage.setItem(SAID, message.words);
    location.assign(location.pathname);
  }

  const source = (key) => `/media?filepath=${encodeURIComponent(`/vouch/${desk.queue}/${key}`)}`;
  const scriptBase = document.currentScript ? document.currentScript.src : new URL("/plugins/", location.href).href;

  // ---- the panel's buttons

  function register() {
    const { Operator, OperatorConfig, registerOperator } = window.__foo__;
    const actions = { take, giveBack, grid: openGrid };
    class InBrowser extends Operator {
      get config() {
        return new OperatorConfig({ name: "in_browser", label: "Act in the browser", unlisted: true });
      }
      async execute({ params }) {
        await actions[params.action]();
      }
    }
    registerOperator(InBrowser, PLUGIN);
  }

  // ---- start

  // Items open where they can be answered, also by a click in the grid; no advertisement lies over them.
  function annotateFirst() {
    localStorage.setItem("fiftyone-enterprise-tooltip-seen", "true");
    localStorage.setItem(`${datasetName()}_modalMode`, '"annotate"');
    window.__fos__.jotaiStore.set(window.__fos__.modalMode, ANNOTATE);
  }

  async function start() {
    document.head.append(style);
    document.body.append(line);
    const { watchPictures } = await import(new URL("pictures/index.umd.js", scriptBase));
    pictures = watchPictures({ source, changed: draw });
    window.addEventListener("keydown", onKey, { capture: true });
    window.addEventListener("keyup", leaveList, { capture: true });
    for (const sign of ["pointerdown", "pointerup", "wheel"]) {
      window.addEventListener(sign, onPointer, { capture: true, passive: true });
    }
    document.addEventListener("visibilitychange", onHidden);
    setInterval(watchItem, 60);
    setInterval(beat, BEAT_MS);
    watchServer();
    register();
    annotateFirst();
    try {
      await call("desk");
      if (!desk.cards.length) await pause("Your desk is empty");
      say(sessionStorage.getItem(SAID) || "");
      sessionStorage.removeItem(SAID);
    } catch (error) {
      say(error.message, true);
    }
  }

  start();
})();
