// The list of models, and what the chosen one can do.

import * as api from "./api.js";
import { $ } from "./dom.js";
import { attempt } from "./notices.js";
import { load } from "./storage.js";
import { set, state } from "./state.js";

let choose;
let latest = 0; // number of the last load: an earlier one that ends later is ignored

/** Set up the list; `chosen(model)` is called when the user chooses another model, and for the first one. */
export function prepare(chosen) {
  choose = chosen;
  $("model").addEventListener("change", () => pick($("model").value, true));
}

/** Choose a model by its key, if it is installed; `withDefaults`: its settings too. */
export function pick(key, withDefaults = false) {
  const model = state.models.find((one) => one.key === key);
  if (!model) return;
  $("model").value = key;
  set({ model });
  if (withDefaults) choose(model);
}

/** Load the list of models that can generate images from the server, and keep the selected one. */
export async function loadModels() {
  const started = ++latest;
  const selected = state.model?.key ?? load("invokeclone", {}).model;
  let models;
  try {
    models = await api.generationModels();
  } catch (error) {
    if (started === latest) hint(`The list of models could not be loaded: ${error.message}`);
    return;
  }
  if (started !== latest) return;
  hint(models.length ? "" : "No model that can generate images is installed. Open Models to install one.");
  $("model").replaceChildren(...models.map((model) => new Option(model.name, model.key)));
  const isAvailable = models.some((model) => model.key === selected);
  set({ models, ...(models.length ? {} : { model: null }) });
  if (models.length) pick(isAvailable ? selected : models[0].key, !isAvailable);
}

/** Load the LoRAs and VAEs. */
export const loadExtras = () => attempt(async () => {
  const lists = await Promise.all([api.models("lora"), api.models("vae")]);
  if (state.entered) set({ extras: lists.flat() });
});

function hint(text) {
  $("model-hint").hidden = !text;
  $("model-hint").textContent = text;
}

/** Empty the list of models, for a page that nobody is signed in to. */
export function clearModels() {
  latest += 1;
  $("model").replaceChildren();
  hint("");
  set({ models: [], extras: [], model: null });
}
