import assert from "node:assert/strict";
import test from "node:test";
import { Leases } from "../src/leases.js";
import { Session } from "../src/session.js";
import { IDLE_MS } from "../src/timing.js";
import { item } from "./page.js";

function started(t) {
  const made = { now: 1_000_000, messages: [], calls: [], answer: async () => ({ lost: 0 }) };
  t.mock.method(Date, "now", () => made.now);
  made.session = new Session();
  const call = (name) => {
    made.calls.push(name);
    return made.answer();
  };
  made.leases = new Leases(call, made.session, (message, isWrong) => made.messages.push([message, isWrong]));
  made.session.update({ items: [item("a")], lease_s: (2 * IDLE_MS) / 1000 }, 1);
  return made;
}

test("leases are renewed while somebody works, and reported when they run out", async (t) => {
  const made = started(t);
  made.now += IDLE_MS - 1;
  await made.leases.renew();
  assert.deepEqual(made.calls, ["renew"]);
  made.now += 1;
  await made.leases.renew();
  assert.deepEqual([made.calls.length, made.messages], [1, []]);
  made.now += IDLE_MS + 1;
  await made.leases.renew();
  assert.match(made.messages[0][0], /^Your lease ran out/);
  made.leases.sign();
  await made.leases.renew();
  assert.equal(made.calls.length, 2);
});

test("without items there is nothing to renew", async (t) => {
  const made = started(t);
  made.session.update({ items: [] }, 2);
  await made.leases.renew();
  assert.deepEqual(made.calls, []);
});

test("what was lost, and what failed, is reported", async (t) => {
  const made = started(t);
  made.answer = async () => ({ lost: 2 });
  await made.leases.renew();
  made.answer = () => Promise.reject(new Error("the server is away"));
  await made.leases.renew();
  assert.deepEqual(made.messages, [
    ["2 items were given to somebody else, as your lease had run out", true],
    ["the server is away", true],
  ]);
});
