import assert from "node:assert/strict";
import test from "node:test";
import "./page.js";
import * as app from "../src/app.js";

/** The App's page, as far as it is read. */
function show(t, html) {
  document.body.innerHTML = html;
  t.after(() => {
    document.body.innerHTML = "";
  });
}

const ID = "0123456789abcdef01234567";
const FORM = `<div data-cy="modal"><button data-cy="annotate-edit-back"></button><div><div class="form-group">
  <div data-cy="root_label_container"><input role="combobox" value="cat"></div></div></div><p>id: ${ID}</p></div>`;

test("the selected label is the one whose form shows its id", (t) => {
  show(t, FORM);
  assert.equal(app.selectedLabel(), ID);
  assert.equal(app.isLabelOpen(), true);
  document.querySelector("[data-cy=annotate-edit-back]").remove();
  assert.equal(app.selectedLabel(), null);
});

test("fields, and the list of classes among them", (t) => {
  show(t, `${FORM}<input id="other"><b id="word"></b>`);
  const list = app.classList();
  assert.equal(list.getAttribute("role"), "combobox");
  assert.equal(app.isClassList(list), true);
  assert.equal(app.isClassList(document.querySelector("#other")), false);
  assert.equal(app.isClassList(null), false);
  assert.equal(app.isField(list), true);
  assert.equal(app.isField(document.querySelector("#word")), false);
  assert.equal(app.isField(document), false);
  assert.equal(app.isField(null), false);
});

test("an option is found by its whole name", (t) => {
  show(t, '<ul><li role="option">catfish</li><li role="option" id="right"> cat </li></ul>');
  assert.equal(app.classOption("cat").id, "right");
  assert.equal(app.classOption("ox"), undefined);
});

test("edits are saved unless the App says that they are not", (t) => {
  assert.equal(app.isSaved(), true);
  show(t, '<i data-cy="annotation-save-state" data-settled="false"></i>');
  assert.equal(app.isSaved(), false);
  document.querySelector("i").dataset.settled = "true";
  assert.equal(app.isSaved(), true);
});

test("an image is painted once it has come, has a size and is not hidden", (t) => {
  show(t, '<div data-cy="lighter-sample-renderer" style="visibility: visible"></div>');
  const image = { complete: true, naturalWidth: 320, style: { display: "block", width: "640px" } };
  assert.equal(app.isPainted(image), true);
  assert.equal(app.isPainted({ ...image, naturalWidth: 0 }), false);
  assert.equal(app.isPainted({ ...image, complete: false }), false);
  assert.equal(app.isPainted({ ...image, style: { display: "none", width: "640px" } }), false);
  assert.equal(app.isPainted({ ...image, style: { display: "block", width: "" } }), false);
  document.querySelector("[data-cy=lighter-sample-renderer]").style.visibility = "hidden";
  assert.equal(app.isPainted(image), false);
});
