import assert from "node:assert/strict";
import test from "node:test";
import { Screen } from "../src/screen.js";
import { LABEL_MS, SEEN_MS, SLOW_MS } from "../src/timing.js";
import { item } from "./page.js";

function started() {
  const made = { now: 5_000, painted: false, listed: true, broken: false };
  const app = { isListed: () => made.listed, isLabelOpen: () => false };
  const pictures = { isPainted: () => made.painted, isBroken: () => made.broken };
  made.screen = new Screen(app, pictures, () => made.now);
  return made;
}

const ready = () => document.documentElement.dataset.vouchReady;

test("an item is ready once it was painted long enough to be seen, and asks to be looked at then", () => {
  const made = started();
  assert.equal(made.screen.look(item("a")), true);
  assert.equal(made.screen.next(), Number.POSITIVE_INFINITY);
  made.painted = true;
  assert.equal(made.screen.look(item("a")), false);
  assert.equal(made.screen.next(), SEEN_MS);
  assert.equal(ready(), "");
  made.now += SEEN_MS;
  assert.equal(made.screen.next(), 0);
  made.screen.look(item("a"));
  assert.equal(ready(), "a");
  assert.equal(made.screen.next(), Number.POSITIVE_INFINITY);
  made.screen.look(item("b"));
  assert.equal(ready(), "");
  assert.equal(made.screen.isReady(item("b")), false);
});

test("a label that is not listed is waited for, but not for ever", () => {
  const made = started();
  made.painted = true;
  made.listed = false;
  made.screen.look(item("a"));
  made.screen.look(item("a"));
  assert.equal(made.screen.painted, 0);
  assert.equal(made.screen.next(), LABEL_MS);
  made.now += LABEL_MS;
  made.screen.look(item("a"));
  assert.equal(made.screen.painted, made.now);
});

test("a question about an image waits for no label", () => {
  const made = started();
  made.painted = true;
  made.listed = false;
  const image = item("a", { label: null, kind: "image" });
  made.screen.look(image);
  made.screen.look(image);
  assert.equal(made.screen.painted, made.now);
});

test("the time of an item starts when it is painted, and stands still while the page is hidden", (t) => {
  const made = started();
  made.screen.look(item("a"));
  made.now += 3_000;
  made.painted = true;
  made.screen.look(item("a"));
  made.now += 1_000;
  assert.equal(made.screen.seconds(), 1);
  let isHidden = true;
  Object.defineProperty(document, "hidden", { get: () => isHidden, configurable: true });
  t.after(() => delete document.hidden);
  made.screen.visibilityChanged();
  made.now += 60_000;
  assert.equal(made.screen.seconds(), 1);
  isHidden = false;
  made.screen.visibilityChanged();
  made.now += 500;
  assert.equal(made.screen.seconds(), 1.5);
});

test("a key is too early until the item is ready, broken, or slow to be painted", () => {
  const made = started();
  const one = item("a");
  assert.equal(made.screen.isTooEarly(one), true);
  made.screen.look(one);
  assert.equal(made.screen.isTooEarly(one), true);
  made.broken = true;
  assert.equal(made.screen.isTooEarly(one), false);
  made.broken = false;
  made.now += SLOW_MS;
  assert.equal(made.screen.isTooEarly(one), false);
  made.painted = true;
  made.screen.look(one);
  assert.equal(made.screen.isTooEarly(one), true);
  made.now += SEEN_MS;
  made.screen.look(one);
  assert.equal(made.screen.isTooEarly(one), false);
});
