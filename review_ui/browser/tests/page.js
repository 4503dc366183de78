// A small page in memory for tests: linkedom's, with what it lacks of a browser.
import { parseHTML } from "linkedom";

const { window, document } = parseHTML("<!doctype html><html><head></head><body></body></html>");

/** Images that were asked for: linkedom loads none, so tests decide how they end. */
export const asked = [];

class TestImage extends window.HTMLElement {
  constructor() {
    super(document, "img");
    asked.push(this);
  }
}

Object.assign(globalThis, {
  window,
  document,
  MutationObserver: window.MutationObserver,
  HTMLElement: window.HTMLElement,
  Image: TestImage,
  requestAnimationFrame: (done) => setTimeout(done),
});

/** Says that an image has come, or has failed to. */
export function end(image, kind) {
  image.dispatchEvent(new window.Event(kind));
}

/** An item as the server sends it. */
export function item(name, more = {}) {
  const place = { key: `${name}.jpg`, width: 320, height: 240, box: [10, 20, 50, 80] };
  const texts = { ask: "Is this a cat?", class_name: "cat", masked: false };
  return { item: name, sample: `sample-${name}`, label: `label-${name}`, kind: "label", ...place, ...texts, ...more };
}

/** Answers of a server: `server.answers` has a function per operator; `server.calls` what was asked. */
export function serve() {
  const server = { calls: [], answers: {} };
  globalThis.fetch = async (_address, { body }) => {
    const { operator_uri: uri, params } = JSON.parse(body);
    const name = uri.split("/").at(-1);
    server.calls.push({ name, params });
    const { status = 200, ...answer } = await server.answers[name](params);
    return { ok: status < 400, status, json: async () => answer };
  };
  return server;
}

/** A promise with its ends in hand. */
export function deferred() {
  const made = {};
  made.promise = new Promise((resolve, reject) => Object.assign(made, { resolve, reject }));
  return made;
}
