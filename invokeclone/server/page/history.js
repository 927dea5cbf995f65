// Prompts that were used in this browser, newest first.

import { $, button, element, iconButton, render } from "./dom.js";
import { open } from "./dialogs.js";
import { setPrompts } from "./form.js";
import { load, save } from "./storage.js";

const KEY = "invokeclone-prompts";
const LIMIT = 100;

export function prepare() {
  $("history-open").addEventListener("click", () => {
    $("history-search").value = "";
    show();
    open("history");
  });
  $("history-search").addEventListener("input", show);
  $("history-clear").addEventListener("click", () => { forget(); show(); });
}

const isSame = (one, other) => one.prompt === other.prompt && one.negative === other.negative;

/** Put the prompts of a run first. */
export function remember(prompt, negative) {
  if (!prompt.trim()) return;
  const used = { prompt, negative };
  save(KEY, [used, ...load(KEY, []).filter((one) => !isSame(one, used))].slice(0, LIMIT));
}

export function forget() { save(KEY, []); }

function show() {
  const words = $("history-search").value.trim().toLowerCase();
  const prompts = load(KEY, []);
  const found = prompts.filter(({ prompt, negative }) => `${prompt}\n${negative}`.toLowerCase().includes(words));
  $("history-empty").hidden = found.length > 0;
  $("history-empty").textContent = prompts.length ? "No prompt contains this text." : "Prompts appear here once you have used them.";
  $("history-clear").hidden = !prompts.length;
  render($("history-list"), ...found.map(row));
}

function row(used) {
  const use = button("", () => { setPrompts(used.prompt, used.negative); $("history").close(); }, { className: "quiet text" });
  use.append(element("span", {}, used.prompt), used.negative ? element("small", {}, `Without: ${used.negative}`) : "");
  const remove = iconButton("cross", "Remove from the list", () => {
    save(KEY, load(KEY, []).filter((one) => !isSame(one, used)));
    show();
    $("history-search").focus();
  });
  return element("li", {}, use, remove);
}
