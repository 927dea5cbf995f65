// Style presets: templates around the prompt. The server has bundled ones; users add their own.

import * as api from "./api.js";
import { $, element } from "./dom.js";
import { ask } from "./dialogs.js";
import { attempt } from "./notices.js";
import { on, set, state } from "./state.js";
import { load, save } from "./storage.js";

const KEY = "invokeclone-style";
const PLACEHOLDER = "{prompt}";

const current = () => state.presets.find((preset) => preset.id === state.style);
const isOwn = (preset) => preset.type !== "default" && (!state.user || state.user.is_admin || preset.user_id === state.user.user_id);

/** Return prompt and negative prompt with the chosen style. */
export function apply(prompt, negative) {
  const data = current()?.preset_data;
  return data ? { prompt: fill(data.positive_prompt, prompt), negative: fill(data.negative_prompt, negative) } : { prompt, negative };
}

function fill(template, text) {
  if (template.includes(PLACEHOLDER)) return template.replaceAll(PLACEHOLDER, () => text);
  return [text, template].map((part) => part.trim()).filter(Boolean).join(", ");
}

export function prepare() {
  set({ style: load(KEY, "") });
  $("style").addEventListener("change", () => set({ style: $("style").value }));
  $("style-add").addEventListener("click", () => edit(null));
  $("style-edit").addEventListener("click", () => edit(current()));
  $("style-delete").addEventListener("click", remove);
  on(["presets", "style"], show);
}

export const loadPresets = () => attempt(async () => set({ presets: await api.presets() }));

function show() {
  const groups = [["Yours", (preset) => isOwn(preset)], ["Shared", (preset) => preset.type !== "default" && !isOwn(preset)], ["Bundled", (preset) => preset.type === "default"]];
  $("style").replaceChildren(new Option("No style", ""), ...groups.map(([label, belongs]) => {
    const options = state.presets.filter(belongs).map((preset) => new Option(preset.name, preset.id));
    return options.length ? element("optgroup", { label }, ...options) : null;
  }).filter(Boolean));
  const preset = current();
  $("style").value = preset?.id ?? "";
  $("style-edit").hidden = $("style-delete").hidden = !preset || !isOwn(preset);
  $("style-hint").hidden = !preset;
  $("style-hint").textContent = preset?.preset_data.positive_prompt ?? "";
  if (state.presets.length) save(KEY, $("style").value);
}

/** Edit a style of the user, or add one. */
async function edit(preset) {
  const data = preset?.preset_data;
  const values = await ask({
    title: preset ? "Edit the style" : "New style",
    text: "{prompt} stands for your prompt.",
    submit: "Save",
    fields: [
      { name: "name", label: "Name", value: preset?.name, required: true },
      { name: "positive_prompt", label: "Prompt", value: data?.positive_prompt ?? PLACEHOLDER, long: true },
      { name: "negative_prompt", label: "Negative prompt", value: data?.negative_prompt, long: true },
    ],
  });
  if (!values) return;
  await attempt(async () => {
    const saved = await api.savePreset({ ...values, is_public: preset?.is_public ?? false }, preset?.id);
    await loadPresets();
    set({ style: saved.id });
  });
}

async function remove() {
  const preset = current();
  if (!await ask({ title: "Delete the style", text: `“${preset.name}” is deleted.`, submit: "Delete", danger: true })) return;
  await attempt(async () => {
    await api.deletePreset(preset.id);
    set({ style: "" });
    await loadPresets();
  });
}
