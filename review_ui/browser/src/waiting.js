// @ts-check
// Waits for the page to change, instead of looking again and again.
import { BURST_MS, FORM_MS } from "./timing.js";

/** @param {number} time */
export const sleep = (time) => new Promise((done) => setTimeout(done, time));

/** Until the next frame; a hidden page has none. */
export const frame = () =>
  new Promise((done) => (document.hidden ? setTimeout(done) : requestAnimationFrame(() => done(undefined))));

/**
 * Calls `listener` whenever the page may show something else: elements, attributes, texts, images, the address.
 *
 * @param {() => void} listener
 * @returns {() => void} Stops it.
 */
export function onPageChange(listener) {
  const observer = new MutationObserver(listener);
  observer.observe(document.body, { childList: true, subtree: true, attributes: true, characterData: true });
  // Images come and fail without a change of the document; these events do not bubble, but they can be captured.
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

/**
 * Waits until something is on the page.
 *
 * @template T
 * @param {() => T} found Looks for it; what it finds is truthy.
 * @param {string} trouble The message when it does not come.
 * @param {number} [limit] Milliseconds.
 * @returns {Promise<NonNullable<T>>}
 */
export async function until(found, trouble, limit = FORM_MS) {
  const end = performance.now() + limit;
  for (;;) {
    const result = found();
    if (result) return result;
    const left = end - performance.now();
    if (left <= 0) throw new Error(trouble);
    await pageChange(left);
    await frame();
  }
}

/** @param {number} limit */
function pageChange(limit) {
  return new Promise((done) => {
    const end = () => {
      stop();
      clearTimeout(timer);
      done(undefined);
    };
    const stop = onPageChange(end);
    const timer = setTimeout(end, limit);
  });
}

/**
 * Looks at the page after every burst of changes, and when the last look asked for another.
 *
 * @param {() => number} look Returns the milliseconds until it must look again if nothing changes; may be Infinity.
 * @returns {() => void} Has it look soon: something changed that the page does not show.
 */
export function watchPage(look) {
  let timer = 0;
  let due = Number.POSITIVE_INFINITY;
  /** @param {number} delay */
  const wake = (delay) => {
    const at = performance.now() + delay;
    if (at >= due) return;
    clearTimeout(timer);
    due = at;
    timer = setTimeout(() => {
      due = Number.POSITIVE_INFINITY;
      const again = look();
      if (Number.isFinite(again)) wake(Math.max(0, again));
    }, delay);
  };
  const soon = () => wake(BURST_MS);
  onPageChange(soon);
  soon();
  return soon;
}
