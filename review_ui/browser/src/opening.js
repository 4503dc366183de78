// @ts-check
// Opens the review where the session has no items: takes a batch once somebody sees the page, and goes to the first item.
import { button, make } from "./dom.js";

/** Until the page is on the screen: browsers load pages in the background, and before anybody asks for them. */
export function seen() {
  return new Promise((done) => {
    const look = () => {
      const isAhead = "prerendering" in document && document.prerendering === true;
      if (isAhead || document.visibilityState !== "visible") return;
      for (const name of ["visibilitychange", "prerenderingchange"]) document.removeEventListener(name, look);
      done(undefined);
    };
    for (const name of ["visibilitychange", "prerenderingchange"]) document.addEventListener(name, look);
    look();
  });
}

/** @param {(address: string) => void} go */
export async function open(go) {
  await seen();
  /** @type {{ address?: string, error?: string }} */
  let answer = { error: "the review's server does not answer; is `vouch review` still running?" };
  try {
    const headers = { "Content-Type": "application/json" };
    answer = await (await fetch("/vouch/open", { method: "POST", headers, body: "{}" })).json();
  } catch {
    // The message above says it.
  }
  if (answer.address) return go(answer.address);
  const reload = button("Try again", () => location.reload());
  const trouble = make("p", "trouble", answer.error ?? "this failed; the log of the review says why");
  trouble.setAttribute("role", "alert");
  document.querySelector("#vouch-cover")?.replaceChildren(trouble, reload);
}
