// Built by `make js` from review_ui/browser/src: change it there.
"use strict";
(() => {
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

  // src/opening.js
  function seen() {
    return new Promise((done) => {
      const look = () => {
        const isAhead = "prerendering" in document && document.prerendering === true;
        if (isAhead || document.visibilityState !== "visible") return;
        for (const name of ["visibilitychange", "prerenderingchange"]) document.removeEventListener(name, look);
        done(void 0);
      };
      for (const name of ["visibilitychange", "prerenderingchange"]) document.addEventListener(name, look);
      look();
    });
  }
  async function open(go) {
    await seen();
    let answer = { error: "the review's server does not answer; is `vouch review` still running?" };
    try {
      const headers = { "Content-Type": "application/json" };
      answer = await (await fetch("/vouch/open", { method: "POST", headers, body: "{}" })).json();
    } catch {
    }
    if (answer.address) return go(answer.address);
    const reload = button("Try again", () => location.reload());
    const trouble = make("p", "trouble", answer.error ?? "this failed; the log of the review says why");
    trouble.setAttribute("role", "alert");
    document.querySelector("#vouch-cover")?.replaceChildren(trouble, reload);
  }

  // src/open.js
  open((address) => location.replace(address));
})();
