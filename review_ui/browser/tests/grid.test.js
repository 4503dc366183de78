import assert from "node:assert/strict";
import test from "node:test";
import { operators } from "../src/api.js";
import { Busy } from "../src/busy.js";
import { CropGrid } from "../src/grid.js";
import { Session } from "../src/session.js";
import { cropOf } from "../src/tile.js";
import { sleep, until } from "../src/waiting.js";
import { end, item, serve } from "./page.js";

test("a crop is a square around the box, with some of what is beside it", () => {
  const { scale, left, top } = cropOf([10, 20, 50, 120], 170);
  assert.equal(scale, 1); // the longer side, 100, and 35 on each side
  assert.equal(left, 30 - 85);
  assert.equal(top, 70 - 85);
});

/** An open grid of four crops of a cat; `keep` are not answered by the server, and why. */
async function opened(t, { keep = {}, load = ["load", "load", "load", "load"] } = {}) {
  const server = serve();
  const session = new Session();
  const pages = [["a", "b", "c", "d"]];
  session.update({ items: ["a", "b", "c", "d"].map((name) => item(name)), classes: ["cat", "dog", "ox"] }, 0);
  server.answers.grid_take = () => ({ result: { grid: pages.shift() ?? [], class_name: "cat" } });
  server.answers.grid_submit = ({ shown }) => ({
    result: { answered: shown.length - Object.keys(keep).length, kept: keep },
  });
  server.answers.skip = () => ({ result: {} });
  const messages = [];
  const notify = (message, isWrong = false) => messages.push([message, isWrong]);
  const made = { server, messages, isClosed: false };
  const busy = new Busy(notify, () => {});
  made.grid = new CropGrid(
    operators(session, () => "d"),
    session,
    notify,
    busy,
    () => {
      made.isClosed = true;
    },
  );
  await made.grid.open();
  t.after(() => made.grid.close());
  made.root = document.querySelector("#vouch-grid");
  made.tiles = () => [...document.querySelectorAll("#vouch-grid .tile")];
  made.submitted = () => server.calls.filter(({ name }) => name === "grid_submit").map(({ params }) => params);
  made.tiles().forEach((tile, place) => {
    if (load[place]) end(tile.querySelector("img"), load[place]);
  });
  made.ready = () => until(() => made.root.dataset.ready, "the page is not ready", 5_000);
  return made;
}

test("those that are clicked an odd number of times are picked out", async (t) => {
  const { grid, tiles, ready, submitted, messages, isClosed } = await opened(t);
  await ready();
  for (const place of [1, 3, 2, 2]) tiles()[place].click();
  assert.deepEqual(
    tiles().map((tile) => tile.getAttribute("aria-pressed")),
    ["false", "true", "false", "true"],
  );
  assert.equal(isClosed, false);
  await grid.submit();
  const [{ seconds, ...answer }] = submitted();
  assert.deepEqual(answer, { shown: ["a", "b", "c", "d"], wrong: ["b", "d"], verdict: "not_an_object" });
  assert.ok(seconds > 0);
  assert.deepEqual(messages[0], ["4 answered, 2 of them as not an object", false]);
});

test("when no crops are left the grid closes", async (t) => {
  const made = await opened(t);
  await made.ready();
  await made.grid.submit();
  assert.equal(made.isClosed, true);
  assert.equal(made.tiles().length, 0);
  assert.deepEqual(made.messages.at(-1), ["No labels are left to verify.", false]);
});

test("a page that nobody can have seen is not submitted, and a second press counts once", async (t) => {
  const { grid, ready, submitted } = await opened(t, { load: ["load", "load", "load"] });
  await grid.submit();
  assert.deepEqual(submitted(), []);
  end(document.querySelectorAll("#vouch-grid img")[3], "load");
  await sleep(20);
  await grid.submit();
  assert.deepEqual(submitted(), []);
  await ready();
  await Promise.all([grid.submit(), grid.submit()]);
  assert.equal(submitted().length, 1);
});

test("another class is to be chosen", async (t) => {
  const { grid, tiles, root, ready, submitted, messages } = await opened(t);
  await ready();
  tiles()[0].click();
  const [verdict, rightClass] = root.querySelectorAll("select");
  assert.equal(rightClass.style.display, "none");
  verdict.options[2].selected = true;
  verdict.dispatchEvent(new window.Event("change"));
  assert.equal(rightClass.style.display, "");
  await grid.submit();
  assert.deepEqual(messages, [["choose the class of those that you picked", true]]);
  assert.deepEqual(
    [...rightClass.options].map((one) => one.textContent),
    ["its class: choose", "dog", "ox"],
  );
  rightClass.options[1].selected = true;
  await grid.submit();
  assert.equal(submitted()[0].class_name, "dog");
});

test("what cannot be shown cannot be picked, and is skipped", async (t) => {
  const { grid, server, tiles, ready, submitted, messages } = await opened(t, {
    load: ["error", "load", "load", "load"],
  });
  await ready();
  tiles()[0].click();
  assert.equal(tiles()[0].getAttribute("aria-pressed"), "false");
  assert.equal(tiles()[0].getAttribute("aria-label"), "cannot be shown");
  await grid.submit();
  assert.deepEqual(submitted()[0].shown, ["b", "c", "d"]);
  assert.deepEqual(
    server.calls.filter(({ name }) => name === "skip").map(({ params }) => params.item),
    ["a"],
  );
  assert.deepEqual(messages[0], ["3 answered, all correct; 1 skipped: they cannot be shown", false]);
});

test("what is not answered stays for a page with the reason, and is asked for no more", async (t) => {
  const { grid, server, tiles, ready, messages } = await opened(t, { keep: { b: "another's by now" } });
  await ready();
  await grid.submit();
  assert.deepEqual(
    tiles().map((tile) => [tile.dataset.item, tile.dataset.why]),
    [["b", "another's by now"]],
  );
  tiles()[0].click();
  assert.equal(tiles()[0].getAttribute("aria-pressed"), "false");
  assert.deepEqual(messages[0], ["3 answered, all correct; 1 not answered: another's by now", true]);
  assert.deepEqual(server.calls.at(-1).params.leave, ["b"]);
});

test("an error of the server is shown, and the page stays", async (t) => {
  const made = await opened(t);
  await made.ready();
  made.server.answers.grid_submit = () => ({ result: { error: "the database is away" } });
  await made.grid.submit();
  assert.deepEqual(made.messages, [["the database is away", true]]);
  assert.equal(made.tiles().length, 4);
});

test("Alt+Enter submits and Escape closes; other keys are left alone", async (t) => {
  const made = await opened(t);
  await made.ready();
  const press = (code, altKey = false, repeat = false) => {
    const event = new window.Event("keydown", { bubbles: true, cancelable: true });
    Object.assign(event, { code, altKey, repeat });
    window.dispatchEvent(event);
    return event.defaultPrevented;
  };
  assert.equal(press("KeyN", true), false);
  assert.equal(press("Enter"), false);
  assert.equal(press("Enter", true, true), true); // held down
  assert.equal(made.submitted().length, 0);
  assert.equal(press("NumpadEnter", true), true);
  assert.equal(made.submitted().length, 1);
  assert.equal(press("Escape"), true);
  assert.equal(made.isClosed, true);
  assert.equal(press("Escape"), false);
});
