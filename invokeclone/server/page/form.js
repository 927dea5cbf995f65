// The form: generation settings, persisted in local storage, with defaults from the model or an image's metadata.

import * as api from "./api.js";

const PERSISTED = ["prompt", "negative", "width", "height", "steps", "cfg", "scheduler", "seed", "random", "count", "strength", "model"];
const SCHEDULERS = {
  euler: "Euler", euler_a: "Euler Ancestral", euler_k: "Euler Karras", ddim: "DDIM", ddpm: "DDPM", dpmpp_2m: "DPM++ 2M",
  dpmpp_2m_k: "DPM++ 2M Karras", dpmpp_2m_sde: "DPM++ 2M SDE", dpmpp_2m_sde_k: "DPM++ 2M SDE Karras", dpmpp_2s: "DPM++ 2S",
  dpmpp_2s_k: "DPM++ 2S Karras", dpmpp_3m: "DPM++ 3M", dpmpp_3m_k: "DPM++ 3M Karras", dpmpp_sde: "DPM++ SDE",
  dpmpp_sde_k: "DPM++ SDE Karras", deis: "DEIS", deis_k: "DEIS Karras", er_sde: "ER-SDE", heun: "Heun", heun_k: "Heun Karras",
  kdpm_2: "KDPM 2", kdpm_2_k: "KDPM 2 Karras", kdpm_2_a: "KDPM 2 Ancestral", kdpm_2_a_k: "KDPM 2 Ancestral Karras", lcm: "LCM",
  lms: "LMS", lms_k: "LMS Karras", pndm: "PNDM", tcd: "TCD", unipc: "UniPC", unipc_k: "UniPC Karras",
};
const UNSUPPORTED = 424;
const $ = (id) => document.getElementById(id);
const stored = () => { try { return JSON.parse(localStorage.getItem("invokeclone") ?? "{}"); } catch { return {}; } };

let models = [];
let inputImage = null;

/** Fill the form and persist its changes; `report(text)` shows an error. The models come with `loadModels`. */
export function prepare(report) {
  $("scheduler").append(...Object.entries(SCHEDULERS).map(([value, text]) => new Option(text, value)));
  $("scheduler").value = "euler";
  const saved = stored();
  for (const id of PERSISTED) if (id in saved) put(id, saved[id]);
  for (const range of document.querySelectorAll("[data-for]")) {
    const number = $(range.dataset.for);
    range.addEventListener("input", () => { number.value = range.value; });
    number.addEventListener("input", () => { range.value = number.value; });
  }
  $("form").addEventListener("input", sync);
  $("swap").addEventListener("click", () => {
    [$("width").value, $("height").value] = [$("height").value, $("width").value];
    sync();
  });
  $("model").addEventListener("change", () => applyDefaults(current()));
  prepareInputImage(report);
  sync();
}

/** Add a model's capabilities; null if no images can be generated with it. */
async function describe(model) {
  try {
    return { ...model, capabilities: await api.capabilities(model.key) };
  } catch (error) {
    if (error.status === UNSUPPORTED) return null;
    throw error;
  }
}

/** Load the list of models from the server, and keep the selected one. */
export async function loadModels() {
  const selected = stored().model;
  try {
    models = (await Promise.all((await api.models()).map(describe))).filter(Boolean);
    hint(models.length ? "" : "No model that can generate images is installed. Install one with: invokeclone models install");
  } catch (error) {
    hint(`The list of models could not be loaded: ${error.message}`);
    return;
  }
  $("model").replaceChildren(...models.map((model) => new Option(model.name, model.key)));
  const isAvailable = models.some((model) => model.key === selected);
  if (isAvailable) $("model").value = selected;
  else if (models.length) applyDefaults(current());
  sync();
}

function hint(text) {
  $("model-hint").hidden = !text;
  $("model-hint").textContent = text;
}

/** Whether a request can be made: there is a model. */
export const isReady = () => models.length > 0;

/** Empty the list of models, for a page that nobody is signed in to. */
export function clearModels() {
  models = [];
  $("model").replaceChildren();
  hint("");
  $("invoke").disabled = true;
}

/** Forget what a user has entered, after signing out. */
export function forget() {
  for (const id of ["prompt", "negative"]) $(id).value = "";
  setInputImage(null);
  sync();
}

const current = () => models.find((model) => model.key === $("model").value);

function put(id, value) {
  const field = $(id);
  if (field.type === "checkbox") field.checked = Boolean(value);
  else if (value !== undefined && value !== null) field.value = value;
}

/** Synchronize sliders, the seed field and local storage with the form. */
function sync() {
  for (const range of document.querySelectorAll("[data-for]")) range.value = $(range.dataset.for).value;
  $("seed").disabled = $("random").checked;
  $("invoke").disabled = !models.length;
  const values = Object.fromEntries(PERSISTED.map((id) => [id, $(id).type === "checkbox" ? $(id).checked : $(id).value]));
  try { localStorage.setItem("invokeclone", JSON.stringify({ ...values, model: values.model || stored().model })); } catch { /* private mode */ }
}

function applyDefaults(model) {
  const defaults = model?.capabilities.defaults ?? {};
  put("width", defaults.width ?? 512);
  put("height", defaults.height ?? 512);
  put("steps", defaults.steps ?? 30);
  put("cfg", defaults.cfg_scale ?? 7.5);
  put("scheduler", defaults.scheduler ?? "euler");
  sync();
}

/** Return the form's values as the body of an enqueue request. */
export function toRequest() {
  return {
    prompt: $("prompt").value, negative_prompt: $("negative").value, model: current()?.key,
    width: Number($("width").value), height: Number($("height").value), steps: Number($("steps").value),
    cfg_scale: Number($("cfg").value), scheduler: $("scheduler").value, count: Number($("count").value),
    seed: $("random").checked ? null : Number($("seed").value) || 0,
    init_image: inputImage && { image: inputImage.image_name, strength: Number($("strength").value), resize: true },
  };
}

/** Set the form to the metadata of an image. */
export function reuse(metadata) {
  put("prompt", metadata.positive_prompt);
  put("negative", metadata.negative_prompt);
  for (const [id, name] of [["width", "width"], ["height", "height"], ["steps", "steps"], ["cfg", "cfg_scale"], ["cfg", "guidance"], ["scheduler", "scheduler"], ["strength", "strength"]]) put(id, metadata[name]);
  if (Number.isInteger(metadata.seed)) {
    put("seed", metadata.seed);
    $("random").checked = false;
  }
  if (models.some((model) => model.key === metadata.model?.key)) $("model").value = metadata.model.key;
  sync();
}

/** Set the input image by its record, or remove it (null). */
export function setInputImage(image) {
  inputImage = image;
  const box = $("input-image-drop");
  box.replaceChildren();
  if (image) {
    const thumbnail = new Image();
    thumbnail.src = api.address(image.thumbnail_url);
    thumbnail.alt = "Input image";
    box.append(thumbnail);
    $("input-image").open = true;
  } else {
    const text = document.createElement("span");
    text.textContent = "Choose or drop an image";
    box.append(text);
  }
  $("input-image-remove").hidden = !image;
}

function prepareInputImage(report) {
  const box = $("input-image-drop");
  const upload = async (file) => {
    if (!file) return;
    try { setInputImage(await api.upload(file)); } catch (error) { report(error.message); }
  };
  box.addEventListener("click", () => $("input-image-file").click());
  box.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); $("input-image-file").click(); }
  });
  $("input-image-file").addEventListener("change", () => { upload($("input-image-file").files[0]); $("input-image-file").value = ""; });
  box.addEventListener("dragover", (event) => { event.preventDefault(); box.dataset.over = ""; });
  box.addEventListener("dragleave", () => { delete box.dataset.over; });
  box.addEventListener("drop", (event) => { event.preventDefault(); delete box.dataset.over; upload(event.dataTransfer.files[0]); });
  $("input-image-remove").addEventListener("click", () => setInputImage(null));
}
