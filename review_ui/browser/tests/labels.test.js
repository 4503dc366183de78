import assert from "node:assert/strict";
import test from "node:test";
import { Labels } from "../src/labels.js";
import { CLICK_MS } from "../src/timing.js";
import { item } from "./page.js";

/** Labels of an App whose forms are fields of `state`. */
function started() {
  const state = {
    selected: null,
    isOpen: false,
    shownClass: "cat",
    list: null,
    options: {},
    clicked: [],
    messages: [],
  };
  state.buttons = {};
  state.edits = 0;
  const app = {
    selectedLabel: () => state.selected,
    selectedClass: () => state.shownClass,
    isLabelOpen: () => state.isOpen,
    closeLabel() {
      state.isOpen = false;
    },
    clickLabel: (label) => state.clicked.push(label),
    classList: () => state.list,
    classOption: (name) => state.options[name],
    pressOption(option) {
      state.list.value = option;
    },
    leaveField: () => true,
    drawButton: () => state.buttons.draw,
    labelMenu: () => state.buttons.menu,
    removeMask: () => state.buttons.mask,
  };
  const edits = {
    made() {
      state.edits += 1;
    },
  };
  state.labels = new Labels(app, edits, (message) => state.messages.push(message));
  return state;
}

const element = (clicked) => ({ click: clicked, focus() {}, select() {}, value: "cat" });

test("the label in question is clicked until it is selected, and not again before the App can have answered", (t) => {
  const state = started();
  let now = 50_000;
  t.mock.method(performance, "now", () => now);
  assert.equal(state.labels.selectInQuestion(item("a")), CLICK_MS);
  now += CLICK_MS - 100;
  assert.equal(state.labels.selectInQuestion(item("a")), 100);
  assert.deepEqual(state.clicked, ["label-a"]);
  now += 100;
  assert.equal(state.labels.selectInQuestion(item("a")), CLICK_MS);
  assert.deepEqual(state.clicked, ["label-a", "label-a"]);
  state.selected = "label-a";
  assert.equal(state.labels.selectInQuestion(item("a")), Number.POSITIVE_INFINITY);
  // Whoever unselects it afterwards is left alone, until the next item.
  state.selected = null;
  now += CLICK_MS;
  assert.equal(state.labels.selectInQuestion(item("a")), Number.POSITIVE_INFINITY);
  state.labels.itemChanged();
  assert.equal(state.labels.selectInQuestion(item("b")), CLICK_MS);
  assert.deepEqual(state.clicked, ["label-a", "label-a", "label-b"]);
});

test("another label that is open is not left, and a question about an image has none to select", () => {
  const state = started();
  state.isOpen = true;
  assert.equal(state.labels.selectInQuestion(item("a")), Number.POSITIVE_INFINITY);
  state.isOpen = false;
  assert.equal(state.labels.selectInQuestion(item("a", { label: null })), Number.POSITIVE_INFINITY);
  assert.deepEqual(state.clicked, []);
});

test("a new box gets the class that is looked for, once", () => {
  const state = started();
  const asked = item("a", { kind: "possible_miss", label: null, class_name: "dog" });
  assert.equal(state.labels.classOfNewBox(asked), null);
  state.selected = "drawn-1";
  assert.equal(state.labels.classOfNewBox(asked), "dog");
  assert.equal(state.labels.classOfNewBox(asked), null);
  state.selected = "drawn-2";
  state.shownClass = "dog"; // the App's own choice is right
  assert.equal(state.labels.classOfNewBox(asked), null);
});

test("beside a label in question the App's choice stands", () => {
  const state = started();
  state.selected = "drawn-1";
  assert.equal(state.labels.classOfNewBox(item("a", { class_name: "dog" })), null);
  assert.equal(state.labels.isNewBoxSelected(item("a")), true);
  state.selected = "label-a";
  assert.equal(state.labels.isNewBoxSelected(item("a")), false);
  state.selected = null;
  assert.equal(state.labels.isNewBoxSelected(item("a")), false);
});

test("a class is set in the list of the selected box, and counts as an edit", async () => {
  const state = started();
  await assert.rejects(state.labels.setClass("dog"), { message: "select a box first: click it" });
  state.list = element(() => {
    state.options = { dog: "dog" }; // a click opens the list
  });
  await state.labels.setClass("dog");
  assert.equal(state.list.value, "dog");
  assert.equal(state.edits, 1);
});

test("drawing leaves the label that is open", async () => {
  const state = started();
  let presses = 0;
  state.isOpen = true;
  state.buttons.draw = element(() => {
    presses += 1;
  });
  await state.labels.drawBox();
  assert.deepEqual([state.isOpen, presses, state.labels.isDrawing], [false, 1, true]);
  state.labels.itemChanged();
  assert.equal(state.labels.isDrawing, false);
});

test("the mask of the label in question is taken off", async () => {
  const state = started();
  const done = [];
  state.buttons.menu = element(() => done.push("menu"));
  state.buttons.mask = element(() => done.push("mask"));
  await state.labels.unlockBox(item("a"));
  assert.deepEqual(state.clicked, ["label-a"]);
  assert.deepEqual(done, ["menu", "mask"]);
  assert.match(state.messages[0], /^The mask is removed/);
  assert.equal(state.edits, 1);
});
