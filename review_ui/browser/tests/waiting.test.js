import assert from "node:assert/strict";
import test from "node:test";
import "./page.js";
import { until, watchPage } from "../src/waiting.js";

const HOUR_MS = 3_600_000;
const SOON = { timeout: 60_000 }; // by the change, not by the limit on waiting

function mark(t) {
  const made = document.createElement("p");
  made.id = "mark";
  document.body.append(made);
  t.after(() => made.remove());
  return made;
}

test("what is there already is found at once", async (t) => {
  const made = mark(t);
  assert.equal(await until(() => document.querySelector("#mark"), "none"), made);
});

test("what comes later is found when it comes", SOON, async (t) => {
  let looks = 0;
  const found = until(() => ++looks && document.querySelector("#mark"), "none", HOUR_MS);
  const made = mark(t);
  assert.equal(await found, made);
  assert.ok(looks <= 3, `${looks} looks`);
});

test("an attribute that changes is noticed", SOON, async (t) => {
  const made = mark(t);
  made.dataset.settled = "false";
  const found = until(() => made.dataset.settled !== "false", "not saved", HOUR_MS);
  made.dataset.settled = "true";
  assert.equal(await found, true);
});

test("what does not come is reported", async () => {
  await assert.rejects(
    until(() => null, "it has not come", 20),
    { message: "it has not come" },
  );
});

test("a burst of changes is one look, and a look may ask for another", async (t) => {
  let looks = 0;
  let done;
  const twice = new Promise((found) => {
    done = found;
  });
  const soon = watchPage(() => {
    looks += 1;
    if (looks === 2) done();
    return looks === 1 ? 5 : Number.POSITIVE_INFINITY;
  });
  for (let change = 0; change < 20; change++) mark(t);
  soon();
  await twice;
  await new Promise((found) => setTimeout(found, 150));
  assert.equal(looks, 2);
});
