import assert from "node:assert/strict";
import test from "node:test";
import { actionOf, keyHints } from "../src/keys.js";
import { item } from "./page.js";

const ON_PAGE = { inField: false, inWholeClass: false, isItemShown: true };
const IN_FIELD = { ...ON_PAGE, inField: true };
const IN_LIST = { ...IN_FIELD, inWholeClass: true };

const press = (code, { graph = false, ...more } = {}) => ({
  code,
  altKey: true,
  ctrlKey: false,
  metaKey: false,
  shiftKey: false,
  getModifierState: (name) => name === "AltGraph" && graph,
  ...more,
});

test("Alt and a key", () => {
  const meant = {
    Enter: "submit",
    NumpadEnter: "submit",
    KeyB: "bad_box",
    KeyN: "reject",
    Backspace: "reject",
    KeyS: "skip",
    KeyZ: "undo",
    KeyT: "take",
    KeyG: "grid",
    KeyD: "draw",
    KeyM: "unlock",
    KeyH: "hint",
    Digit0: "type_class",
    Numpad0: "type_class",
  };
  for (const [code, name] of Object.entries(meant)) assert.deepEqual(actionOf(press(code), ON_PAGE), { name }, code);
});

test("numbers stand for classes, on both blocks of keys", () => {
  for (let digit = 1; digit <= 9; digit++) {
    for (const block of ["Digit", "Numpad"]) {
      assert.deepEqual(actionOf(press(`${block}${digit}`), ON_PAGE), { name: "class", place: digit - 1 });
    }
  }
});

test("other keys are the App's", () => {
  for (const code of ["KeyQ", "Space", "ArrowLeft", "Escape", "F1", "constructor", "toString"]) {
    assert.equal(actionOf(press(code), ON_PAGE), null, code);
  }
  for (const code of ["Enter", "KeyN", "Digit1"]) assert.equal(actionOf(press(code, { altKey: false }), ON_PAGE), null);
});

test("with another modifier a key is the App's", () => {
  for (const more of [{ ctrlKey: true }, { metaKey: true }, { shiftKey: true }, { graph: true }]) {
    assert.equal(actionOf(press("KeyN", more), ON_PAGE), null);
    assert.equal(actionOf(press("ArrowLeft", { ...more, altKey: false }), ON_PAGE), null);
  }
});

test("arrows go to the items beside, where an item is shown and nobody types", () => {
  const left = press("ArrowLeft", { altKey: false });
  const right = press("ArrowRight", { altKey: false });
  assert.deepEqual(actionOf(left, ON_PAGE), { name: "previous" });
  assert.deepEqual(actionOf(right, ON_PAGE), { name: "next" });
  assert.equal(actionOf(left, { ...ON_PAGE, isItemShown: false }), null);
  assert.equal(actionOf(left, IN_FIELD), null);
  assert.equal(actionOf(right, IN_LIST), null);
});

test("where people type only Enter answers", () => {
  for (const code of ["KeyN", "KeyB", "Digit2", "Digit0", "Backspace"]) {
    assert.equal(actionOf(press(code), IN_FIELD), null, code);
  }
  assert.deepEqual(actionOf(press("Enter"), IN_FIELD), { name: "submit" });
  assert.deepEqual(actionOf(press("NumpadEnter"), IN_FIELD), { name: "submit" });
});

test("in the list of classes with none half typed every key counts", () => {
  assert.deepEqual(actionOf(press("KeyN"), IN_LIST), { name: "reject" });
  assert.deepEqual(actionOf(press("Digit2"), IN_LIST), { name: "class", place: 1 });
});

test("hints of a label name the first nine classes, and how to type another", () => {
  const classes = Array.from({ length: 11 }, (_, place) => `class${place}`);
  const hints = keyHints(item("a", { masked: true }), classes, false);
  assert.deepEqual(hints.slice(0, 4), ["Alt+ Enter as shown", "N no object", "B bad box", "M free the box to move it"]);
  assert.ok(hints.includes("9 class8"));
  assert.ok(!hints.includes("10 class9"));
  assert.deepEqual(hints.slice(-2), ["0 type a class", "? all keys"]);
  assert.ok(!keyHints(item("a"), classes.slice(0, 9), false).includes("0 type a class"));
});

test("every kind of item has the key for what the models say", () => {
  for (const kind of ["label", "possible_miss", "image"]) {
    assert.ok(keyHints(item("a", { kind }), ["cat"], false).includes("H what the models say"), kind);
  }
});

test("hints of an image and of drawing", () => {
  const image = item("a", { kind: "image", label: null, class_name: null });
  assert.equal(keyHints(image, ["cat"], false)[0], "Alt+ D draw");
  assert.equal(keyHints(image, ["cat"], true)[0], "Drag a box around an object that none shows");
  assert.equal(keyHints(item("a"), ["cat"], true)[0], "Drag a box around a cat that none shows");
});
