import assert from "node:assert/strict";
import test from "node:test";
import { Line } from "../src/line.js";
import { Pictures } from "../src/pictures.js";
import { asked, end, item } from "./page.js";

function started() {
  const made = { address: "sample-a", images: [], changes: 0 };
  const app = { addressedSample: () => made.address, images: () => made.images, isPainted: (image) => image.isPainted };
  const changed = () => {
    made.changes += 1;
  };
  made.pictures = new Pictures(app, (key) => `/media/${key}`, changed);
  return made;
}

test("the picture of the item before is not the next item's, though both show one image", () => {
  const made = started();
  made.images = [{ isPainted: true, complete: true, naturalWidth: 9 }];
  assert.equal(made.pictures.isPainted(item("a")), true);
  made.address = "sample-b";
  assert.equal(made.pictures.isPainted(item("b")), false);
  made.images = [{ isPainted: true, complete: true, naturalWidth: 9 }];
  assert.equal(made.pictures.isPainted(item("b")), true);
  assert.equal(made.pictures.hasFailed(item("b")), false);
});

test("the App has failed where its image is complete and empty", () => {
  const made = started();
  made.images = [{ isPainted: false, complete: true, naturalWidth: 0 }];
  made.pictures.note();
  assert.equal(made.pictures.hasFailed(item("a")), true);
  assert.equal(made.pictures.hasFailed(item("b")), false);
});

test("an image is asked for once, and again after it failed", async () => {
  const made = started();
  const before = asked.length;
  const picture = made.pictures.look(item("a"));
  assert.equal(made.pictures.look(item("a")), picture);
  assert.equal(asked.length, before + 1);
  end(asked.at(-1), "error");
  assert.equal(await picture.done, "broken");
  assert.equal(made.pictures.isBroken(item("a")), true);
  assert.equal(made.changes, 1);
  const again = made.pictures.look(item("a"));
  assert.equal(asked.length, before + 2);
  end(asked.at(-1), "load");
  assert.equal(await again.done, "shown");
  assert.equal(made.pictures.isBroken(item("a")), false);
});

test("the line shows the question, what is left, and an error as one", () => {
  const shown = { item: item("a"), isBroken: false, isDrawing: false, classes: ["cat"], left: 3 };
  const line = new Line(() => shown);
  line.notify("the database is away", true);
  assert.match(line.element.textContent, /^Is this a cat\? {2}3 left/);
  assert.equal(line.element.querySelector(".note.wrong").textContent, "the database is away");
  shown.hint = "SAM is unsure of the mask: 0.50";
  line.notify("1 items taken");
  assert.match(line.element.textContent, /^Is this a cat\? SAM is unsure of the mask: 0.50 {2}3 left/);
  assert.equal(line.element.querySelector(".note.message").textContent, "1 items taken");
  shown.isBroken = true;
  line.draw();
  assert.equal(line.element.querySelector(".note.wrong").textContent, "this image cannot be shown: skip it (Alt+S)");
  Object.assign(shown, { item: null, isBroken: false });
  line.notify("");
  assert.equal(line.element.style.display, "none");
});
