// @ts-check
// The page between batches: what is left, and buttons to go on. The page at the end: what was answered, what comes next.
import { button, make } from "./dom.js";
import { ALIVE_MS, ANSWER_MS } from "./timing.js";
import { sleep } from "./waiting.js";

const MISSES = 2; // answers of the server that must fail to come, one after another

export const STYLE = `
  #vouch-sheet, #vouch-ended { position: fixed; inset: 0; z-index: 19000; display: flex; align-items: center;
    justify-content: center; background: #14171c; color: #e8eaed; font: 16px/1.5 system-ui, sans-serif;
    text-align: center; }
  #vouch-sheet ol { display: inline-block; margin: 0; text-align: left; }
  #vouch-sheet code { padding: 1px 6px; border-radius: 4px; background: #2a303a; color: #ffd9a3; }
  #vouch-ended { z-index: 30000; flex-direction: column; }
  #vouch-sheet h1, #vouch-ended h1 { font-size: 26px; font-weight: 600; }
  #vouch-sheet button, #vouch-ended button { margin: 12px 6px; padding: 10px 18px; border: 1px solid #ffb14a;
    border-radius: 6px; background: none; color: #ffb14a; font: inherit; cursor: pointer; }`;

export class Pause {
  element = make("div");
  #call;
  #notify;
  #buttons;

  /**
   * @param {import("./types.js").Call} call
   * @param {import("./types.js").Notify} notify
   * @param {(left: number) => [string, () => unknown][]} buttons What stands on them, and what they do.
   */
  constructor(call, notify, buttons) {
    this.#call = call;
    this.#notify = notify;
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
      certified,
    } = await this.#call("session");
    const box = make("div");
    const count = `You have answered ${answered} ${answered === 1 ? "question" : "questions"}`;
    if (left) {
      box.append(make("h1", "", title), make("p", "", `${count}; ${left} are left, about ${Math.ceil(minutes)} min`));
    } else {
      const others = elsewhere
        ? `; other reviewers still have ${elsewhere}, which come to you if they give them back`
        : "";
      box.append(make("h1", "", "Nothing is left to ask you: thank you"), make("p", "", `${count}${others}.`));
      /** @type {HTMLTemplateElement | null} */
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
}

/** Tells when the server is gone: without it the App falls into an error page, which it does not leave by itself. */
export async function watchServer() {
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

/** Whether the server answers. */
export async function isServed() {
  const asked = /** @type {const} */ ({ method: "HEAD", cache: "no-store" });
  const answer = await fetch("/fiftyone", { ...asked, signal: AbortSignal.timeout(ANSWER_MS) }).catch(() => null);
  return answer !== null;
}

/** @param {HTMLElement} ended @param {boolean} isThere */
function drawEnded(ended, isThere) {
  const title = isThere ? "The review answers again" : "The review has ended, or its server cannot be reached";
  if (ended.firstChild?.textContent === title) return;
  const message = isThere ? "Reload to go on." : "Whoever runs it has the next address.";
  const reload = button("Reload", () => location.reload());
  ended.replaceChildren(make("h1", "", title), make("p", "", `What you submitted is kept. ${message}`), reload);
}
