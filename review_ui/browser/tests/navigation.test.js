import assert from "node:assert/strict";
import test from "node:test";
import { Navigation } from "../src/navigation.js";
import { Session } from "../src/session.js";
import { OPENING_MS } from "../src/timing.js";
import { item } from "./page.js";

const NEVER = Number.POSITIVE_INFINITY;

/** A session of two items, in an App that shows the sample `made.shown`, or its grid. */
function started() {
  const made = { now: 5_000, shown: null, asked: [], loaded: [] };
  const session = new Session();
  session.update({ items: [item("a"), item("b")] }, 1);
  const app = {
    isItemOpen: () => made.shown !== null,
    addressedSample: () => made.shown,
    openSample: (sample) => made.asked.push(sample),
    loadSample: (sample) => made.loaded.push(sample),
  };
  made.session = session;
  made.navigation = new Navigation(app, session, {}, () => made.now);
  return made;
}

test("an item is awaited until it is open", () => {
  const made = started();
  const [a] = made.session.items;
  assert.equal(made.navigation.look(), NEVER);
  made.navigation.open(a);
  assert.deepEqual(made.asked, [a.sample]);
  assert.equal(made.navigation.isComing(), true);
  made.now += 1;
  assert.equal(made.navigation.look(), OPENING_MS - 1);
  made.shown = a.sample;
  assert.equal(made.navigation.look(), NEVER);
  assert.equal(made.navigation.isComing(), false);
  made.now += OPENING_MS;
  assert.equal(made.navigation.look(), NEVER);
  assert.deepEqual(made.loaded, []);
});

test("where the App opens nothing the page is loaded again, once", () => {
  const made = started();
  const [a] = made.session.items;
  made.navigation.open(a);
  made.now += OPENING_MS;
  assert.equal(made.navigation.look(), NEVER);
  assert.equal(made.navigation.isComing(), false);
  assert.deepEqual(made.loaded, [a.sample]);
});

test("the page stays as it is while an item is open, or where the one that was asked for has left the session", () => {
  const made = started();
  const [a, b] = made.session.items;
  made.navigation.open(b);
  made.shown = a.sample;
  made.now += OPENING_MS;
  assert.equal(made.navigation.isComing(), false);
  made.shown = null;
  made.navigation.open(b);
  made.session.update({ items: [a] }, 2);
  made.now += OPENING_MS;
  assert.equal(made.navigation.isComing(), false);
  assert.deepEqual(made.loaded, []);
});
