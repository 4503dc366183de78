import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { Answering } from "../src/answering.js";
import { operators } from "../src/api.js";
import { Busy } from "../src/busy.js";
import { Navigation } from "../src/navigation.js";
import { Screen } from "../src/screen.js";
import { Session } from "../src/session.js";
import { SEEN_MS, SLOW_MS } from "../src/timing.js";
import { deferred, item, serve } from "./page.js";

let review;

/** A review of three items whose App shows at once what it is asked for; the clock is the test's own. */
beforeEach(async () => {
  const made = {
    now: 10_000,
    address: "sample-a",
    painted: true,
    broken: false,
    failed: false,
    messages: [],
    pauses: [],
  };
  made.opened = [];
  made.loaded = [];
  made.named = [];
  made.state = "loading";
  const app = {
    isItemOpen: () => made.address !== null,
    addressedSample: () => made.address,
    openSample(sample) {
      made.opened.push(sample);
      made.address = sample;
    },
    closeSample() {
      made.address = null;
    },
    loadSample: (sample) => made.loaded.push(sample),
    hasPanels: () => true,
    isAnnotating: () => true,
    annotate() {},
    isListed: () => true,
    isLabelOpen: () => false,
  };
  const pictures = {
    isPainted: () => made.painted,
    isBroken: () => made.broken,
    hasFailed: () => made.failed,
    look: () => ({ state: made.state, done: Promise.resolve(made.state) }),
  };
  const notify = (message, isWrong = false) => made.messages.push([message, isWrong]);
  made.session = new Session();
  made.server = serve();
  const call = operators(made.session, () => "d");
  const busy = new Busy(notify, () => {});
  const navigation = new Navigation(app, made.session, pictures);
  const screen = new Screen(app, pictures, () => made.now);
  const edits = { saved: async () => {} };
  const labels = {
    isNewBoxSelected: () => made.newBox === true,
    setClass: async (name) => made.named.push(name),
    reselect() {},
  };
  const pause = { show: async (title) => made.pauses.push(title) };
  const show = (one) => navigation.show(one);
  made.answering = new Answering({
    ...{ app, call, session: made.session, busy, navigation, screen, pictures, edits, labels, pause, show, notify },
  });
  made.look = () => screen.look(navigation.shown());
  /** The reviewer sees what is on the screen. */
  made.see = () => {
    made.look();
    made.look();
    made.now += SEEN_MS;
    made.look();
  };
  made.server.answers.session = () => ({
    result: { items: ["a", "b", "c"].map((name) => item(name)), classes: ["cat", "dog"] },
  });
  for (const name of ["submit", "reject", "skip", "wrong_class"]) {
    made.server.answers[name] = (params) => ({
      result: { items: made.session.items.filter((one) => one.item !== params.item) },
    });
  }
  await call("session");
  made.server.calls.length = 0;
  review = made;
});

const answered = () => review.server.calls.map(({ name, params }) => [name, params.item]);

test("an answer goes on to the next item, with the time that was spent", async () => {
  review.see();
  review.now += 1850;
  await review.answering.answer("submit");
  assert.deepEqual(review.server.calls, [{ name: "submit", params: { item: "a", seconds: 2 } }]);
  assert.deepEqual(review.opened, ["sample-b"]);
  assert.deepEqual(review.messages, [["", false]]);
});

test("the next item opens while the answer is still on its way", async () => {
  const slow = deferred();
  review.server.answers.submit = () => slow.promise;
  review.see();
  const answering = review.answering.answer("submit");
  await new Promise((done) => setTimeout(done));
  assert.deepEqual(review.opened, ["sample-b"]);
  assert.equal(document.documentElement.dataset.vouchBusy, "true");
  slow.resolve({ result: { items: [item("b"), item("c")] } });
  await answering;
  assert.equal(document.documentElement.dataset.vouchBusy, "false");
});

test("a key that is pressed again while its answer is on its way counts once", async () => {
  review.see();
  await Promise.all([review.answering.answer("reject"), review.answering.answer("reject")]);
  assert.deepEqual(answered(), [["reject", "a"]]);
});

test("a key that is pressed again before the next item can have been seen counts once", async () => {
  review.see();
  await review.answering.answer("reject");
  await review.answering.answer("reject"); // nothing has been looked at yet
  review.look();
  await review.answering.answer("reject"); // the next item is there, not painted
  review.look();
  review.now += SEEN_MS - 1;
  review.look();
  await review.answering.answer("reject"); // it is painted, and nobody can have judged it
  assert.deepEqual(answered(), [["reject", "a"]]);
  review.now += 1;
  review.look();
  await review.answering.answer("reject");
  assert.deepEqual(answered(), [
    ["reject", "a"],
    ["reject", "b"],
  ]);
});

test("an answer that is refused brings its item back and says why", async () => {
  review.server.answers.submit = () => ({ result: { error: "the mask was removed", items: review.session.items } });
  review.see();
  await review.answering.answer("submit");
  assert.deepEqual(review.opened, ["sample-b", "sample-a"]);
  assert.deepEqual(review.messages.at(-1), ["the mask was removed", true]);
});

test("an answer to an item that was lost says why and goes on", async () => {
  review.server.answers.submit = () => ({ result: { error: "another's by now", items: [item("b"), item("c")] } });
  review.see();
  await review.answering.answer("submit");
  assert.deepEqual(review.opened, ["sample-b"]);
  assert.deepEqual(review.messages.at(-1), ["another's by now", true]);
});

test("the last answer of a batch ends it", async () => {
  review.session.update({ items: [item("a")] }, 99);
  review.see();
  await review.answering.answer("submit");
  assert.deepEqual(review.pauses, ["This batch is done"]);
  assert.equal(review.address, null);
});

test("without an open item nothing is answered", async () => {
  review.address = null;
  await review.answering.answer("submit");
  assert.deepEqual(answered(), []);
  assert.deepEqual(review.messages, [["open an item first: Alt+T takes a batch", true]]);
});

test("an image that cannot be shown can only be skipped", async () => {
  review.painted = false;
  review.broken = true;
  review.state = "broken";
  review.look();
  await review.answering.answer("submit");
  assert.deepEqual(review.messages, [["this image cannot be shown: skip it (Alt+S)", true]]);
  await review.answering.answer("skip");
  assert.deepEqual(answered(), [["skip", "a"]]);
});

test("an image that came for all but the App is loaded again", async () => {
  review.painted = false;
  review.failed = true;
  review.state = "shown";
  review.look();
  review.now += SLOW_MS;
  await review.answering.answer("submit");
  assert.deepEqual(review.loaded, ["sample-a"]);
  assert.deepEqual(answered(), []);
});

test("undo says what was taken back and shows its item", async () => {
  review.server.answers.undo = () => ({
    result: { items: [item("z"), ...review.session.items], item: "z", answer: "bad box" },
  });
  review.see();
  await review.answering.undo();
  assert.deepEqual(review.messages, [["Taken back: bad box", false]]);
  assert.deepEqual(review.opened, ["sample-z"]);
});

test("undo pressed twice takes one answer back", async () => {
  review.server.answers.undo = () => ({
    result: { items: [item("z"), ...review.session.items], item: "z", answer: "bad box" },
  });
  review.see();
  await Promise.all([review.answering.undo(), review.answering.undo()]);
  await review.answering.undo();
  assert.equal(review.server.calls.length, 1);
});

test("undo with nothing to take back says so", async () => {
  review.server.answers.undo = () => ({ result: { error: "there is no answer of yours to take back" } });
  review.see();
  await review.answering.undo();
  assert.deepEqual(review.messages, [["there is no answer of yours to take back", true]]);
  assert.deepEqual(review.opened, []);
});

test("more items in the middle of a batch leave the one on the screen", async () => {
  review.server.answers.take_batch = () => ({ result: { items: [item("a"), item("x")], taken: 1 } });
  await review.answering.take();
  assert.deepEqual(review.opened, []);
  assert.deepEqual(review.messages, [["1 items taken", false]]);
});

test("a batch opens its first item; an empty one ends the review", async () => {
  review.address = null;
  review.server.answers.take_batch = () => ({ result: { items: [item("x")], taken: 1 } });
  await review.answering.take();
  assert.deepEqual(review.opened, ["sample-x"]);
  assert.deepEqual(review.messages, [["1 items taken", false]]);
  review.server.answers.take_batch = () => ({ result: { items: [], taken: 0 } });
  await review.answering.take();
  assert.deepEqual(review.pauses, ["Nothing can be taken now"]);
});

test("a number answers with another class, or names the new box that is selected", async () => {
  review.see();
  review.newBox = true;
  review.answering.pickClass(1);
  await new Promise((done) => setTimeout(done));
  assert.deepEqual(review.named, ["dog"]);
  assert.deepEqual(answered(), []);
  review.newBox = false;
  review.answering.pickClass(7); // there is none
  review.answering.pickClass(1);
  await new Promise((done) => setTimeout(done));
  assert.deepEqual(answered(), [["wrong_class", "a"]]);
  assert.equal(review.server.calls[0].params.class_name, "dog");
});

test("the items beside are looked at without an answer", async () => {
  review.see();
  await review.answering.step(-1);
  assert.deepEqual(review.opened, []);
  await review.answering.step(1);
  assert.deepEqual(review.opened, ["sample-b"]);
  assert.deepEqual(answered(), []);
});

test("what the models say comes when it is asked for, and belongs to its item", async () => {
  review.server.answers.hint = ({ item: name }) => ({ result: { item: name, hint: "the detector is unsure: 0.34" } });
  review.see();
  await review.answering.hint();
  assert.deepEqual(review.server.calls, [{ name: "hint", params: { item: "a" } }]);
  assert.deepEqual([...review.session.hints], [["a", "the detector is unsure: 0.34"]]);
  await review.answering.step(1);
  assert.equal(review.session.hints.get("b"), undefined);
});

test("what the models say is not told of an item that nobody can have seen", async () => {
  review.look();
  await review.answering.hint();
  assert.deepEqual(review.server.calls, []);
});
