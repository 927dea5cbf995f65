// Dialogs over the page: closing them, and questions with an answer.

import { $, element } from "./dom.js";

/** Make the dialogs close with their buttons, and those without entries also with a click beside them. */
export function prepare() {
  for (const dialog of document.querySelectorAll("dialog:not(#account)")) {
    if (dialog.matches("#viewer, .sheet")) dialog.addEventListener("pointerdown", (event) => { if (isBeside(dialog, event)) dialog.close(); });
    for (const closer of dialog.querySelectorAll("[data-close]")) closer.addEventListener("click", () => dialog.close());
  }
}

function isBeside(dialog, { target, clientX, clientY }) {
  const { left, right, top, bottom } = dialog.getBoundingClientRect();
  return target === dialog && (clientX < left || clientX > right || clientY < top || clientY > bottom);
}

/** Open a dialog unless it is open. */
export function open(id) {
  if (!$(id).open) $(id).showModal();
}

export function closeAll() {
  for (const dialog of document.querySelectorAll("dialog[open]:not(#account)")) dialog.close();
}

/**
 * Ask a question; return a promise of the values by their names, or of null if the user cancels. `fields` have name, label,
 * value and, for several lines, `long`. `danger` colors the button.
 */
export function ask({ title, text = "", fields = [], submit, danger = false }) {
  $("ask-title").textContent = title;
  $("ask-text").textContent = text;
  $("ask-text").hidden = !text;
  $("ask-submit").textContent = submit;
  $("ask-submit").className = danger ? "danger solid" : "primary";
  $("ask-fields").replaceChildren(...fields.map(({ name, label, value = "", long = false, required = false }) => {
    const input = element(long ? "textarea" : "input", { id: `ask-${name}`, value, required, ...(long ? { rows: 3 } : { type: "text" }) });
    return element("div", { className: "field" }, element("label", { htmlFor: input.id }, label), input);
  }));
  open("ask");
  return new Promise((resolve) => {
    const finish = (values) => {
      stop.abort();
      $("ask").close();
      $("ask-fields").replaceChildren();
      resolve(values);
    };
    const stop = new AbortController();
    const options = { signal: stop.signal };
    $("ask").addEventListener("close", () => finish(null), options);
    $("ask-form").addEventListener("submit", (event) => {
      event.preventDefault();
      finish(Object.fromEntries(fields.map(({ name }) => [name, $(`ask-${name}`).value.trim()])));
    }, options);
  });
}
