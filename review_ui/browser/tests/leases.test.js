import assert from "node:assert/strict";
import test from "node:test";
import { Leases } from "../src/leases.js";
import { Session } from "../src/session.js";
import { IDLE_MS } from "../src/timing.js";
import { item } from "./page.js";

function started(t) {
  const made = { now: 1_000_000, said: [], calls: [], answer: async () => ({ lost: 0 }) };
  t.mock.method(Date, "now", () => made.now);
  made.session = new Session();
  const call = (name) => {
    made.calls.push(name);
    return made.answer();
  };
  made.leases = new Leases(call, made.session, (words, isWrong) => made.said.push([words, isWrong]));
  made.session.update({ cards: [item("a")], lease_s: (2 * IDLE_MS) / 1000 }, 1);
  return made;
}

test("leases are renewed while somebody works, and told of when they run out", async (t) => {
  const made = started(t);
  made.now += IDLE_MS - 1;
  await made.leases.renew();
  assert.deepEqual(made.calls, ["renew"]);
  made.now += 1;
  await made.leases.renew();
  assert.deepEqual([made.calls.length, made.said], [1, []]);
  made.now += IDLE_MS + 1;
  await made.leases.renew();
  assert.match(made.said[0][0], /^Your lease ran out/);
  made.leases.sign();
  await made.leases.renew();
  assert.equal(made.calls.length, 2);
});

test("without items there is nothing to renew", async (t) => {
  const made = started(t);
  made.session.update({ cards: [] }, 2);
  await made.leases.renew();
  assert.deepEqual(made.calls, []);
});

test("what was lost, and what failed, is told", async (t) => {
  const made = started(t);
  made.answer = async () => ({ lost: 2 });
  await made.leases.renew();
  made.answer = () => Promise.reject(new Error("the server is away"));
  await made.leases.renew();
  assert.deepEqual(made.said, [
    ["2 items were given to somebody else, as your lease had run out", true],
    ["the server is away", true],
  ]);
});
