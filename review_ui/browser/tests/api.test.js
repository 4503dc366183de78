import assert from "node:assert/strict";
import test from "node:test";
import { operators } from "../src/api.js";
import { Session } from "../src/session.js";
import { deferred, item, serve } from "./page.js";

function started() {
  const session = new Session();
  return { session, server: serve(), call: operators(session, () => "vouch-q-ann") };
}

test("an answer brings the session up to date", async () => {
  const { session, server, call } = started();
  const result = { items: [item("a")], classes: ["cat", "dog"], queue: "q1", lease_s: 600, open: 7 };
  server.answers.session = () => ({ result });
  const before = Date.now();
  assert.deepEqual(await call("session", { item: "a" }), result);
  assert.deepEqual(server.calls, [{ name: "session", params: { item: "a" } }]);
  assert.deepEqual(session.items, [item("a")]);
  assert.deepEqual(session.classes, ["cat", "dog"]);
  assert.ok(session.leasedUntil >= before + 600_000);
  assert.equal(session.source("a b/c.jpg"), "/media?filepath=%2Fvouch%2Fq1%2Fa%20b%2Fc.jpg");
});

test("what an answer does not name stays", async () => {
  const { session, server, call } = started();
  server.answers.session = () => ({ result: { items: [item("a")], classes: ["cat"], queue: "q1" } });
  server.answers.skip = () => ({ result: { items: [] } });
  await call("session");
  await call("skip");
  assert.deepEqual([session.items, session.classes, session.queue], [[], ["cat"], "q1"]);
});

test("an answer that comes after that of a newer request is stale, but for its lease", async () => {
  const { session, server, call } = started();
  const renewed = deferred();
  server.answers.renew = () => renewed.promise;
  server.answers.submit = () => ({ result: { items: [item("b")] } });
  const renewing = call("renew");
  await call("submit");
  renewed.resolve({ result: { items: [item("a"), item("b")], lease_s: 60, lost: 0 } });
  await renewing;
  assert.deepEqual(
    session.items.map((one) => one.item),
    ["b"],
  );
  assert.ok(session.leasedUntil > Date.now());
});

test("a request that fails makes no other answer stale", async () => {
  const { session, server, call } = started();
  const slow = deferred();
  server.answers.renew = () => slow.promise;
  server.answers.submit = () => ({ status: 500 });
  const renewing = call("renew");
  await assert.rejects(call("submit"));
  slow.resolve({ result: { items: [item("a")] } });
  await renewing;
  assert.equal(session.items.length, 1);
});

const ERRORS = [
  [{ result: { error: "this item is another's by now", items: [] } }, "this item is another's by now"],
  [{ result: {}, error_message: "no such operator" }, "no such operator"],
  [{ result: {}, error: "Traceback ..." }, "this failed; the log of the review says why"],
  [{ status: 403, error: "not in this session" }, "not in this session"],
  [{ status: 422, detail: "not readable" }, "not readable"],
  [{ status: 502 }, "the review's server refused this (502)"],
];
for (const [answer, message] of ERRORS) {
  test(`an error in one line: ${message}`, async () => {
    const { server, call } = started();
    server.answers.submit = () => answer;
    await assert.rejects(call("submit"), { message });
  });
}

test("an error brings the items that are left all the same", async () => {
  const { session, server, call } = started();
  server.answers.submit = () => ({ result: { error: "lost", items: [item("b")] } });
  await assert.rejects(call("submit"));
  assert.equal(session.item("b")?.item, "b");
});

test("a server that is gone is reported", async () => {
  const { call } = started();
  globalThis.fetch = () => Promise.reject(new TypeError("Failed to fetch"));
  await assert.rejects(call("submit"), { message: /is `vouch review` still running/ });
});

test("items beside an item", () => {
  const session = new Session();
  session.update({ items: [item("a"), item("b")] }, 1);
  const [first, second] = session.items;
  assert.equal(session.beside(first, 1), second);
  assert.equal(session.beside(second, 1), null);
  assert.equal(session.beside(first, -1), null);
  assert.equal(session.ofSample("sample-b"), second);
  assert.equal(session.ofSample(null), null);
});
