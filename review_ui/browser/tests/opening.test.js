import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import "./page.js";
import { Cover } from "../src/cover.js";
import { KeyHelp } from "../src/help.js";
import { open } from "../src/opening.js";
import { Pause } from "../src/pause.js";

const COVER = '<div id="vouch-cover" data-reviewer="ann"></div>';
let asked;

beforeEach(() => {
  document.body.innerHTML = COVER;
  see("visible");
  asked = [];
  answer({ address: "/datasets/d?id=a" });
});

/** What the browser says of the page. */
function see(visibilityState, prerendering = false) {
  Object.defineProperty(document, "visibilityState", { value: visibilityState, configurable: true });
  Object.defineProperty(document, "prerendering", { value: prerendering, configurable: true });
}

function answer(body) {
  globalThis.fetch = async (address, { method }) => {
    asked.push([method, address]);
    return { json: async () => body };
  };
}

const event = (name) => document.dispatchEvent(new window.Event(name));
const turn = () => new Promise((done) => setImmediate(done));

test("a page that is seen takes a batch and goes to its first item", async () => {
  const gone = [];
  await open((address) => gone.push(address));
  assert.deepEqual(asked, [["POST", "/vouch/open"]]);
  assert.deepEqual(gone, ["/datasets/d?id=a"]);
});

test("a page that nobody sees takes nothing until somebody does", async () => {
  for (const [state, prerendering, name] of [
    ["hidden", false, "visibilitychange"],
    ["visible", true, "prerenderingchange"],
  ]) {
    see(state, prerendering);
    asked = [];
    const opened = open(() => {});
    event(name);
    await turn();
    assert.deepEqual(asked, [], state);
    see("visible");
    event(name);
    await opened;
    assert.equal(asked.length, 1);
  }
});

test("what goes wrong is shown in the place of the cover's words", async () => {
  for (const [body, message] of [
    [{ error: "the review database at x does not answer" }, "the review database at x does not answer"],
    [{}, "this failed; the log of the review says why"],
    [null, "the review's server does not answer; is `vouch review` still running?"],
  ]) {
    document.body.innerHTML = COVER;
    answer(body);
    if (body === null) globalThis.fetch = async () => Promise.reject(new TypeError("network"));
    await open(() => assert.fail("there is nowhere to go"));
    assert.equal(document.querySelector("#vouch-cover .trouble").textContent, message);
    assert.equal(document.querySelector("#vouch-cover button").textContent, "Try again");
  }
});

test("the cover of the page is used again", () => {
  const cover = new Cover();
  assert.equal(cover.reviewer, "ann");
  cover.hide();
  assert.equal(document.querySelector("#vouch-cover"), null);
  cover.show("Opening the next items");
  assert.equal(document.querySelector("#vouch-cover").textContent, "Opening the next items");
});

/** A browser's storage. */
function storage() {
  const kept = new Map();
  return { getItem: (name) => kept.get(name) ?? null, setItem: (name, value) => kept.set(name, value) };
}

test("the keys are shown to each reviewer once, and whenever they are asked for", () => {
  const kept = storage();
  const help = new KeyHelp("ann", kept);
  help.showFirst();
  assert.equal(help.isShown, true);
  document.querySelector("#vouch-keys button").dispatchEvent(new window.Event("click"));
  assert.equal(help.isShown, false);
  const later = new KeyHelp("ann", kept);
  later.showFirst();
  assert.equal(later.isShown, false);
  later.toggle();
  assert.equal(later.isShown, true);
  later.toggle();
  assert.equal(later.isShown, false);
  const other = new KeyHelp("ben", kept);
  other.showFirst();
  assert.equal(other.isShown, true);
});

/** A page between batches of a session that is so far. */
async function pause(progress) {
  const shown = new Pause(
    async () => progress,
    () => {},
    (left) => [[left ? "Take a batch" : "Look again", () => {}]],
  );
  await shown.show("This batch is done");
  return shown.element.textContent;
}

test("between batches the page says how far one is", async () => {
  const text = await pause({ open: 41, minutes_left: 2.2, answered_by_me: 6 });
  assert.equal(text, "This batch is doneYou have answered 6 questions; 41 are left, about 3 minTake a batch");
});

test("between batches the page says what is certified so far", async () => {
  const certified = "certified at 0.95 for 63.0% of the labels; about 40 more answers for 70.0%";
  const text = await pause({ open: 41, minutes_left: 2.2, answered_by_me: 6, certified });
  assert.match(text, /about 3 minCertified at 0\.95 for 63\.0% of the labels; about 40 more answers for 70\.0%\.Take/);
});

test("at the end it says what was answered, what stands certified and what comes next", async () => {
  document.body.innerHTML += '<template id="vouch-end"><p>Nothing is certified yet.</p></template>';
  const text = await pause({ open: 0, answered_by_me: 1, elsewhere: 3 });
  assert.match(text, /^Nothing is left to ask you: thank you/);
  assert.match(text, /You have answered 1 question; other reviewers still have 3/);
  assert.match(text, /Nothing is certified yet\.Look again$/);
});
