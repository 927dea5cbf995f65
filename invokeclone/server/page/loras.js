// The LoRA picker: LoRAs for the chosen model's base, their weights and trigger phrases.

import { $, button, element, iconButton, render } from "./dom.js";
import { features, on, set, state } from "./state.js";
import { load, save } from "./storage.js";

const KEY = "invokeclone-loras";

export function prepare() {
  set({ loras: load(KEY, []) });
  on(["model", "extras", "loras"], show);
  $("lora-add").addEventListener("change", () => add($("lora-add").value));
  show();
}

const compatible = () => state.extras.filter((model) => model.type === "lora" && model.base === state.model?.base);

/** Return the chosen LoRAs that fit the chosen model, with their records. */
function applied() {
  const records = new Map(compatible().map((model) => [model.key, model]));
  return state.loras.filter(({ key }) => records.has(key)).map((lora) => ({ ...lora, model: records.get(lora.key) }));
}

export const toRequest = () => applied().map(({ key, weight }) => ({ model: key, weight }));

/** Return the LoRAs of an image's metadata. */
export const fromMetadata = (metadata) =>
  (metadata.loras ?? []).filter(({ model }) => model?.key).map(({ model, weight }) => ({ key: model.key, weight: weight ?? 1 }));

function add(key) {
  const model = compatible().find((one) => one.key === key);
  if (model) set({ loras: [...state.loras, { key, weight: model.default_settings?.weight ?? 1 }] });
}

function change(key, weight) {
  const lora = state.loras.find((one) => one.key === key);
  if (!Number.isFinite(weight) || !lora) return;
  lora.weight = Math.min(10, Math.max(-10, weight));
  save(KEY, state.loras);
}

function show() {
  if (state.model) save(KEY, state.loras);
  if (!features().lora) return;
  const chosen = applied();
  const choices = compatible().filter((model) => !chosen.some(({ key }) => key === model.key));
  $("lora-add").replaceChildren(new Option("Add a LoRA …", ""), ...choices.map((model) => new Option(model.name, model.key)));
  $("lora-add").disabled = !choices.length || chosen.length >= state.model.limits.loras;
  $("lora-count").textContent = chosen.length ? `(${chosen.length})` : "";
  $("lora-hint").hidden = choices.length > 0 || chosen.length > 0;
  $("lora-hint").textContent = `No LoRA for ${state.model.base} is installed.`;
  render($("lora-list"), ...chosen.map(row));
}

function row({ key, weight, model }) {
  const { weight_min: min, weight_max: max } = model.default_settings ?? {};
  const number = element("input", { type: "number", min: -10, max: 10, step: 0.05, value: weight, inputMode: "decimal", "aria-label": `Weight of ${model.name}` });
  const range = element("input", { type: "range", min: min ?? -1, max: max ?? 2, step: 0.05, value: weight, tabIndex: -1, "aria-label": `Weight slider of ${model.name}` });
  number.addEventListener("input", () => { range.value = number.value; change(key, number.valueAsNumber); });
  range.addEventListener("input", () => { number.value = range.value; change(key, range.valueAsNumber); });
  const remove = iconButton("cross", `Remove ${model.name}`, () => {
    set({ loras: state.loras.filter((lora) => lora.key !== key) });
    $("lora-add").focus();
  });
  const phrases = (model.trigger_phrases ?? []).map((phrase) => button(phrase, () => append(phrase), { className: "chip", title: "Add to the prompt" }));
  return element("li", {},
    element("div", { className: "lora-name" }, element("span", {}, model.name), remove),
    element("div", { className: "slider wide" }, range, number),
    phrases.length ? element("p", { className: "chips" }, ...phrases) : null);
}

/** Add a trigger phrase to the prompt, unless it has it. */
function append(phrase) {
  const prompt = $("prompt");
  if (!prompt.value.includes(phrase)) prompt.value = [prompt.value.trim(), phrase].filter(Boolean).join(", ");
  prompt.dispatchEvent(new Event("input", { bubbles: true }));
}
