// @ts-check
// All that is known of FiftyOne's App: its elements by their data-cy names, its operators, state and addresses.
import { PLUGIN } from "./api.js";

/** @typedef {typeof import("./app.js")} App */

const IMAGE = '[data-cy="lighter-sample-image"]';
const RENDERER = '[data-cy="lighter-sample-renderer"]';
const ANNOTATE = "annotate"; // the mode in which labels can be changed

/**
 * @param {string} name
 * @returns {HTMLElement | null}
 */
const find = (name) => document.querySelector(`[data-cy="${name}"]`);

/** @param {string} name @param {import("./types.js").Parameters} [parameters] */
const execute = (name, parameters = {}) => window.__foo__.executeOperator(name, parameters);

// Room for the line of hints; no arrows to items that are not the session's neighbours.
export const STYLE = `
  [data-cy=modal] { box-sizing: border-box; padding-bottom: var(--vouch-line, 0); }
  [data-cy=modal-content] { height: calc(100% - 76px) !important; }
  a[href*="voxel51.com/why-upgrade"] { display: none !important; }
  span:has(> [data-cy=nav-left-button]), span:has(> [data-cy=nav-right-button]) { display: none !important; }`;

// ---- pages

export function datasetName() {
  const found = location.pathname.match(/\/datasets\/([^/?]+)/);
  return found ? decodeURIComponent(found[1]) : "";
}

export const isItemOpen = () => find("modal") !== null;
/** Of an empty dataset the App shows a page without panels, which only reloading leaves. */
export const hasPanels = () => find("panel-container") !== null;
export const isPanelShown = () => find("panel-tab-review_queue") !== null;
/** Its grid measures itself, and gives up where it is laid out at that moment; it does not come back by itself. */
export const hasFailed = () => find("error-boundary") !== null;
export const isGridShown = () => find("panel-tab-samples") !== null;

/** The sample that the address names; the App may still show the one before. */
export const addressedSample = () => new URL(location.href).searchParams.get("id");

/** @param {string} id */
export const openSample = (id) => execute("open_sample", { id, mode: ANNOTATE });
export const closeSample = () => execute("close_sample");
export const reloadSamples = () => execute("reload_samples");
export const openPanel = () => execute("open_panel", { name: "review_queue", isActive: true, layout: "horizontal" });
/** @param {string} id */
export const loadSample = (id) => location.assign(`${location.pathname}?id=${id}`);
/** The page without an item: nothing is taken for it. */
export const loadDataset = () => location.assign(`${location.pathname}?pause`);

export const isAnnotating = () => window.__fos__.jotaiStore.get(window.__fos__.modalMode) === ANNOTATE;
export const annotate = () => window.__fos__.jotaiStore.set(window.__fos__.modalMode, ANNOTATE);

/**
 * Registers the operator by which the panel's buttons act in the browser.
 *
 * @param {Record<string, () => unknown>} actions
 */
export function registerInBrowser(actions) {
  const { Operator, OperatorConfig, registerOperator } = window.__foo__;
  class InBrowser extends Operator {
    get config() {
      return new OperatorConfig({ name: "in_browser", label: "Act in the browser", unlisted: true });
    }
    /** @param {{ params: { action: string } }} context */
    async execute({ params }) {
      await actions[params.action]();
    }
  }
  registerOperator(InBrowser, PLUGIN);
}

// ---- the picture of an item

/** @returns {NodeListOf<HTMLImageElement>} */
export const images = () => document.querySelectorAll(IMAGE);

/**
 * The App hides an image until it has painted it.
 *
 * @param {HTMLImageElement} image
 */
export function isPainted(image) {
  if (!image.complete || !image.naturalWidth) return false;
  if (image.style.display === "none" || !(Number.parseFloat(image.style.width) > 0)) return false;
  /** @type {HTMLElement | null} */
  const renderer = document.querySelector(RENDERER);
  return renderer?.style.visibility === "visible";
}

// ---- fields

/** @param {EventTarget | null} target @returns {target is HTMLElement} */
export function isField(target) {
  if (!(target instanceof HTMLElement)) return false;
  return target.isContentEditable || /^(INPUT|TEXTAREA|SELECT)$/.test(target.tagName);
}

/** What is typed into the App's fields is taken when they lose the focus. Returns whether one had it. */
export function leaveField() {
  const active = document.activeElement;
  if (!isField(active)) return false;
  active.blur();
  return true;
}

/** Whether all edits are saved, as far as the App has noted them. */
export const isSaved = () => find("annotation-save-state")?.dataset.settled !== "false";

// ---- labels

export const isLabelOpen = () => find("annotate-edit-back") !== null;
export const closeLabel = () => find("annotate-edit-back")?.click();
/** @param {string} label */
export const isListed = (label) => find(`annotate-label-${label}`) !== null;
/** @param {string} label */
export const clickLabel = (label) => find(`annotate-label-${label}`)?.click();

/** The id of the label that is selected: its form shows it. */
export function selectedLabel() {
  const form = isLabelOpen() && find("root_label_container")?.closest(".form-group")?.parentElement;
  // biome-ignore lint/performance/useDomNodeTextContent: only the layout sets the id apart from the text around it
  const text = (form && find("modal")?.innerText) || "";
  return text.match(/\bid:\s*([0-9a-f]{24})\b/)?.[1] ?? null;
}

/** What the form of the selected label gives as its class. */
export const selectedClass = () => find("root_label_container")?.querySelector("input")?.value;

/** The list of classes in the form of the selected label. @returns {HTMLInputElement | null} */
export const classList = () => find("root_label_container")?.querySelector("input[role=combobox]") ?? null;

/** @param {EventTarget | null} target */
export const isClassList = (target) => target !== null && target === classList();

/** Once Esc leaves a list, the focus goes back to the page. @param {KeyboardEvent} event */
export function leaveListOnEscape(event) {
  const field = event.target;
  if (event.code === "Escape" && field instanceof HTMLElement && field.matches("input[role=combobox]")) field.blur();
}

/**
 * @param {string} name
 * @returns {Element | undefined}
 */
export const classOption = (name) =>
  [...document.querySelectorAll("[role=option]")].find((one) => one.textContent?.trim() === name);

/** The list takes a press, not a click. @param {Element} option */
export function pressOption(option) {
  for (const kind of ["pointerdown", "mousedown", "pointerup", "mouseup", "click"]) {
    const Kind = kind.startsWith("pointer") ? PointerEvent : MouseEvent;
    option.dispatchEvent(new Kind(kind, { bubbles: true, cancelable: true, button: 0 }));
  }
}

export const drawButton = () => find("detection-mode");
export const labelMenu = () => find("label-menu-trigger");
export const removeMask = () => find("label-menu-remove-mask");
