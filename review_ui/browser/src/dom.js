// @ts-check
// Makes elements.

/**
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {string} [className]
 * @param {string} [text]
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function make(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

/**
 * @param {string} text
 * @param {() => unknown} action
 */
export function button(text, action) {
  const made = make("button", "", text);
  made.addEventListener("click", () => void action());
  return made;
}
