// @ts-check
// The key map: which key means what, and when keys are left to the App.
//
// The App has no keys for plugins, so key presses are caught before it sees them; Alt+, because it uses bare letters.

/** @typedef {{ name: string, place?: number }} Action `place`: of the class that a number stands for. */

/** @type {Readonly<Record<string, string>>} */
const WITH_ALT = Object.freeze({
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
});
/** @type {Readonly<Record<string, string>>} */
const WITHOUT_ALT = Object.freeze({ ArrowLeft: "previous", ArrowRight: "next" });
const HINT = "H what the models say";
// While people type: Alt and a letter writes a sign on some keyboards.
const WHILE_TYPING = new Set(["Enter", "NumpadEnter"]);

/**
 * @typedef {object} Place Where a key is pressed.
 * @property {boolean} inField In a field, where keys write.
 * @property {boolean} inWholeClass In the list of classes with none half typed: there is nothing that keys could break.
 * @property {boolean} isItemShown
 */

/**
 * @param {Pick<KeyboardEvent, "code" | "altKey" | "ctrlKey" | "metaKey" | "shiftKey" | "getModifierState">} event
 * @param {Place} place
 * @returns {Action | null} null: the key is the App's.
 */
export function actionOf(event, { inField, inWholeClass, isItemShown }) {
  if (event.ctrlKey || event.metaKey || event.shiftKey || event.getModifierState("AltGraph")) return null;
  if (!event.altKey) {
    const name = !inField && isItemShown && Object.hasOwn(WITHOUT_ALT, event.code) && WITHOUT_ALT[event.code];
    return name ? { name } : null;
  }
  if (inField && !inWholeClass && !WHILE_TYPING.has(event.code)) return null;
  const digit = event.code.match(/^(?:Digit|Numpad)([1-9])$/);
  if (digit) return { name: "class", place: Number(digit[1]) - 1 };
  return Object.hasOwn(WITH_ALT, event.code) ? { name: WITH_ALT[event.code] } : null;
}

/**
 * The hints on the keys for an item.
 *
 * @param {import("./types.js").ItemSummary} item
 * @param {string[]} classes
 * @param {boolean} isDrawing
 */
export function keyHints(item, classes, isDrawing) {
  const names = classes.slice(0, 9).map((name, place) => `${place + 1} ${name}`);
  if (classes.length > names.length) names.push("0 type a class");
  if (isDrawing) {
    const what = item.class_name ? `a ${item.class_name}` : "an object";
    return [`Drag a box around ${what} that none shows`, "Alt+ Enter submits it with your answer", ...names];
  }
  if (item.kind !== "label")
    return ["Alt+ D draw", "Enter done", HINT, "S skip", "Z undo", "class of the box:", ...names, "? all keys"];
  const mask = item.masked ? ["M free the box to move it"] : [];
  return [
    "Alt+ Enter as shown",
    "N no object",
    "B bad box",
    ...mask,
    "D draw",
    HINT,
    "S skip",
    "Z undo",
    ...names,
    "? all keys",
  ];
}
