// @ts-check
// Puts the review together in FiftyOne's App: its keys, what is on the screen, the leases, the panel's buttons.
import { Answering } from "./answering.js";
import { operators } from "./api.js";
import * as app from "./app.js";
import { Busy } from "./busy.js";
import { Cover } from "./cover.js";
import { make } from "./dom.js";
import { Edits } from "./edits.js";
import { CropGrid, STYLE as GRID_STYLE } from "./grid.js";
import { STYLE as HELP_STYLE, KeyHelp } from "./help.js";
import { actionOf } from "./keys.js";
import { Labels } from "./labels.js";
import { Leases } from "./leases.js";
import { STYLE as LINE_STYLE, Line } from "./line.js";
import { Navigation } from "./navigation.js";
import { isServed, STYLE as PAUSE_STYLE, Pause, watchServer } from "./pause.js";
import { Pictures } from "./pictures.js";
import { Screen } from "./screen.js";
import { Session } from "./session.js";
import { AGAIN_MS, CLICK_MS, LOAD_MS, RENEW_MS } from "./timing.js";
import { watchPage } from "./waiting.js";

// In the session's storage: the last message, for after the page is loaded again, and when one that had failed was.
const MESSAGE = "vouch-message";
const LOADED_AGAIN = "vouch-loaded-again";

const session = new Session();
const call = operators(session, app.datasetName);
const source = (/** @type {string} */ key) => session.source(key);
const notify = (/** @type {string} */ message, isWrong = false) => line.notify(message, isWrong);

const line = new Line(() => {
  const item = navigation.shown();
  const isBroken = item !== null && pictures.isBroken(item);
  const hint = item ? session.hints.get(item.item) : undefined;
  return { item, hint, isBroken, isDrawing: labels.isDrawing, classes: session.classes, left: session.items.length };
});
const busy = new Busy(notify, changed);
const pictures = new Pictures(app, source, changed);
const edits = new Edits(app);
const labels = new Labels(app, edits, notify);
const navigation = new Navigation(app, session, pictures);
const screen = new Screen(app, pictures);
const leases = new Leases(call, session, notify);
const cover = new Cover();
const help = new KeyHelp(cover.reviewer, localStorage);
const pause = new Pause(call, notify, (left) => [
  [left ? "Take a batch (Alt+T)" : "Look again (Alt+T)", actions.take],
  ...(left ? [/** @type {[string, () => unknown]} */ (["Crop grid (Alt+G)", actions.grid])] : []),
  ["Undo (Alt+Z)", actions.undo],
]);
const answering = new Answering({
  app,
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
  notify,
});

/** @type {CropGrid | null} */
let grid = null;
let isPanelOpened = false;
let panelAskedAt = Number.NEGATIVE_INFINITY;
/** Samples that the App's grid shows. @type {string | null} */
let inAppGrid = null;
let lookSoon = () => {};
let isStarted = false;
let isLoadingAgain = false;
let uncoverAt = Number.POSITIVE_INFINITY; // what does not come, as where the App fails, is not waited for

/**
 * What the reviewer can do, by the names that the keys, the buttons and the panel use.
 *
 * @type {Record<string, (place?: number) => unknown>}
 */
const actions = {
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
  grid: () => busy.run(openGrid),
};

/** Shows an item in the place of the page between batches. @param {import("./types.js").ItemSummary} item */
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
  if (app.isItemOpen()) app.closeSample();
  grid = new CropGrid(call, session, notify, busy, gridClosed);
  await grid.open();
}

/**
 * The crops stay in the session until they are answered or given back. The App's grid and panel show what was there
 * before, so the page is loaded again; the last message is kept.
 */
function gridClosed() {
  sessionStorage.setItem(MESSAGE, line.message);
  app.loadDataset();
}

/** Looks at the page; returns the milliseconds until it must look again though nothing changes. */
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

/** Shows the App once what it was asked for is there, whatever that is. @param {import("./types.js").ItemSummary | null} item */
function uncover(item) {
  const isPage = pause.element.isConnected || grid !== null || performance.now() > uncoverAt;
  // Between batches the App's own pages are asked for: its grid, with our panel.
  const isAppAsked = isStarted && !busy.isBusy && app.addressedSample() === null && isPanelOpened;
  if (item && (screen.painted || pictures.isBroken(item))) {
    cover.hide();
    help.showFirst();
  } else if (isPage || isAppAsked) cover.hide();
}

/** Loads a page of the App that has failed again, at the item that comes next. */
async function recover() {
  const failedBefore = Date.now() - Number(sessionStorage.getItem(LOADED_AGAIN)) < AGAIN_MS;
  if (!isStarted || isLoadingAgain || failedBefore || busy.isBusy || grid || !app.hasFailed()) return;
  isLoadingAgain = true;
  // A server that is gone has a page of its own.
  if (await isServed()) {
    sessionStorage.setItem(LOADED_AGAIN, String(Date.now()));
    const [first] = session.items;
    if (first) app.loadSample(first.sample);
    else app.loadDataset();
  }
  isLoadingAgain = false;
}

/**
 * Opens our panel once a page, beside the App's grid. The App does so only while no item is open, its grid fails where an
 * item is about to be, and while it loads it drops what it is asked: it is asked again until the panel is there.
 *
 * @returns {number} Milliseconds until it must be looked for again.
 */
function openPanelOnce() {
  isPanelOpened ||= app.isPanelShown();
  const isItemAsked = app.isItemOpen() || app.addressedSample() !== null;
  if (isPanelOpened || isItemAsked || !app.isGridShown()) return Number.POSITIVE_INFINITY;
  if (performance.now() - panelAskedAt >= CLICK_MS) {
    panelAskedAt = performance.now();
    app.openPanel();
  }
  return CLICK_MS;
}

/**
 * The App's grid shows what it has loaded: what was answered meanwhile leaves it when people come back. Not while an item
 * or our panel is about to open: the grid fails where it is laid out at that moment.
 */
function reloadAppGrid() {
  if (app.isItemOpen() || busy.isBusy || grid || !isPanelOpened || navigation.isComing()) return;
  const samples = session.items.map((item) => item.sample).join();
  if (inAppGrid !== null && inAppGrid !== samples && samples && app.isGridShown()) app.reloadSamples();
  inAppGrid = samples;
}

/** @param {KeyboardEvent} event */
function onKey(event) {
  leases.sign();
  if (!event.altKey) edits.made();
  if (grid) return;
  if (helpKey(event)) return;
  const target = event.target;
  const inField = app.isField(target);
  const inWholeClass =
    app.isClassList(target) && target instanceof HTMLInputElement && ["", ...session.classes].includes(target.value);
  const action = actionOf(event, { inField, inWholeClass, isItemShown: navigation.shown() !== null });
  if (!action) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  if (!event.repeat) actions[action.name](action.place);
}

/** "?" shows and hides the keys, and Esc hides them. Returns whether it was such a key. @param {KeyboardEvent} event */
function helpKey(event) {
  const isToggle = event.key === "?" && !event.altKey && !event.ctrlKey && !event.metaKey && !app.isField(event.target);
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
  window.addEventListener("keyup", app.leaveListOnEscape, { capture: true });
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
  document.head.append(make("style", "", [app.STYLE, LINE_STYLE, PAUSE_STYLE, GRID_STYLE, HELP_STYLE].join("\n")));
  document.body.append(line.element);
  listen();
  app.registerInBrowser(actions);
  if (!app.isAnnotating()) app.annotate();
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
