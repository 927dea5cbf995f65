// The form: generation settings, kept in local storage, with defaults from the model or an image's metadata, and only with what the model supports.

import { $ } from "./dom.js";
import * as loras from "./loras.js";
import * as models from "./models.js";
import { features, on, set, state } from "./state.js";
import { load, save } from "./storage.js";
import { apply } from "./styles.js";

const KEY = "invokeclone";
const PERSISTED = [
  "prompt", "negative", "width", "height", "steps", "cfg", "true-cfg", "scheduler", "seed", "random", "count", "strength", "model",
  "vae", "clip-skip", "seamless", "hires",
];
const SCHEDULERS = {
  euler: "Euler", euler_a: "Euler Ancestral", euler_k: "Euler Karras", ddim: "DDIM", ddpm: "DDPM", dpmpp_2m: "DPM++ 2M",
  dpmpp_2m_k: "DPM++ 2M Karras", dpmpp_2m_sde: "DPM++ 2M SDE", dpmpp_2m_sde_k: "DPM++ 2M SDE Karras", dpmpp_2s: "DPM++ 2S",
  dpmpp_2s_k: "DPM++ 2S Karras", dpmpp_3m: "DPM++ 3M", dpmpp_3m_k: "DPM++ 3M Karras", dpmpp_sde: "DPM++ SDE",
  dpmpp_sde_k: "DPM++ SDE Karras", deis: "DEIS", deis_k: "DEIS Karras", er_sde: "ER-SDE", heun: "Heun", heun_k: "Heun Karras",
  kdpm_2: "KDPM 2", kdpm_2_k: "KDPM 2 Karras", kdpm_2_a: "KDPM 2 Ancestral", kdpm_2_a_k: "KDPM 2 Ancestral Karras", lcm: "LCM",
  lms: "LMS", lms_k: "LMS Karras", pndm: "PNDM", tcd: "TCD", unipc: "UniPC", unipc_k: "UniPC Karras",
};
const HIRES_STRENGTH = 0.5;

/** Fill the form and persist its changes. The models come with `loadModels`. */
export function prepare() {
  $("scheduler").append(...Object.entries(SCHEDULERS).map(([value, text]) => new Option(text, value)));
  $("scheduler").value = "euler";
  const saved = load(KEY, {});
  for (const id of PERSISTED) if (id in saved) put(id, saved[id]);
  for (const range of document.querySelectorAll("[data-for]")) {
    const number = $(range.dataset.for);
    range.addEventListener("input", () => { number.value = range.value; });
  }
  $("form").addEventListener("input", sync);
  $("swap").addEventListener("click", () => {
    [$("width").value, $("height").value] = [$("height").value, $("width").value];
    sync();
  });
  models.prepare(applyDefaults);
  on(["model", "extras"], showFeatures);
  showFeatures();
}

function put(id, value) {
  const field = $(id);
  if (field.type === "checkbox") field.checked = Boolean(value);
  else if (value !== undefined && value !== null) field.value = value;
}

/** Synchronize sliders, dependent fields and local storage with the form. */
export function sync() {
  for (const range of document.querySelectorAll("[data-for]")) range.value = $(range.dataset.for).value;
  $("seed").disabled = $("random").checked;
  $("invoke").disabled = !state.model;
  $("negative-field").hidden = Boolean(state.model) && !hasNegative();
  const values = Object.fromEntries(PERSISTED.map((id) => [id, $(id).type === "checkbox" ? $(id).checked : $(id).value]));
  save(KEY, { ...values, model: values.model || load(KEY, {}).model });
  $("form").dispatchEvent(new Event("synced"));
}

const guidance = () => state.model?.guidance ?? "cfg";
const trueScale = () => (guidance() === "distilled" ? Number($("true-cfg").value) || 1 : 1);
const hasNegative = () => guidance() === "cfg" || trueScale() > 1;

/** Show the fields that the chosen model supports, within its limits. */
function showFeatures() {
  const supported = state.model;
  for (const field of document.querySelectorAll("[data-feature]")) {
    field.hidden = !field.dataset.feature.split(" ").some((name) => features()[name]);
  }
  $("cfg-field").hidden = guidance() === "none";
  $("true-cfg-field").hidden = guidance() !== "distilled";
  $("cfg-name").textContent = guidance() === "distilled" ? "Guidance" : "CFG scale";
  if (supported) showSchedulers(supported);
  $("scheduler-field").hidden = supported?.schedulers.length === 1;
  for (const id of ["width", "height"]) {
    $(id).step = supported?.limits.side_multiple ?? 8;
    $(id).max = supported?.limits.side.maximum ?? 2048;
  }
  const vaes = state.extras.filter((model) => model.type === "vae" && model.base === supported?.vae_base);
  const vae = $("vae").value || load(KEY, {}).vae;
  $("vae").replaceChildren(new Option("The model's own", ""), ...vaes.map((model) => new Option(model.name, model.key)));
  if (vaes.some((model) => model.key === vae)) $("vae").value = vae;
  $("vae-field").hidden = !features().separate_vae || !vaes.length;
  $("advanced").hidden = [...$("advanced").querySelectorAll(".field, .switch")].every((field) => field.hidden);
  sync();
}

function showSchedulers({ schedulers, defaults }) {
  const chosen = $("scheduler").value;
  $("scheduler").replaceChildren(...schedulers.map((name) => new Option(SCHEDULERS[name] ?? name, name)));
  $("scheduler").value = schedulers.includes(chosen) ? chosen : defaults.scheduler;
}

function applyDefaults(model) {
  const { defaults } = model;
  for (const [id, value] of [["width", defaults.width], ["height", defaults.height], ["steps", defaults.steps], ["cfg", defaults.cfg_scale], ["scheduler", defaults.scheduler]]) put(id, value);
  sync();
}

/** Round a size down to what the chosen model accepts, scaled to fit its limits. */
export function fit(width, height, { limits } = state.model) {
  const scale = Math.min(1, limits.side.maximum / Math.max(width, height), Math.sqrt(limits.pixels / (width * height)));
  return [width, height].map((side) => Math.max(limits.side.minimum, Math.floor((side * scale) / limits.side_multiple) * limits.side_multiple));
}

/** Return the form's values as the body of an enqueue request. */
export function toRequest() {
  const can = features();
  const styled = apply($("prompt").value, $("negative").value);
  const [width, height, steps] = ["width", "height", "steps"].map((id) => Number($(id).value));
  const source = can.image_to_image || can.inpaint ? state.source : null;
  const mask = can.inpaint ? source?.mask : null;
  const [hiresWidth, hiresHeight] = fit(2 * width, 2 * height);
  return {
    prompt: styled.prompt, negative_prompt: hasNegative() ? styled.negative : "", model: state.model.key, width, height, steps,
    cfg_scale: guidance() === "none" ? null : Number($("cfg").value), true_cfg_scale: trueScale() > 1 ? trueScale() : null,
    scheduler: $("scheduler").value, count: Number($("count").value), seed: $("random").checked ? null : Number($("seed").value) || 0,
    loras: can.lora ? loras.toRequest() : [], vae: can.separate_vae && $("vae").value || null,
    clip_skip: can.clip_skip ? Number($("clip-skip").value) : 0, seamless: Boolean(can.seamless) && $("seamless").checked,
    init_image: source && { image: source.image.image_name, strength: Number($("strength").value), resize: true },
    inpaint_mask: mask && { mask: mask.name, feather: Math.round(Math.max(width, height) / 64) },
    hires_fix: can.hires_fix && $("hires").checked && !mask ? { width: hiresWidth, height: hiresHeight, steps, strength: HIRES_STRENGTH } : null,
    board_id: state.board && state.board !== "none" ? state.board : null,
  };
}

/** Set the form to the metadata of an image; its prompt includes the style. */
export function reuse(metadata) {
  models.pick(metadata.model?.key);
  put("prompt", metadata.positive_prompt);
  put("negative", metadata.negative_prompt);
  for (const [id, name] of [["width", "width"], ["height", "height"], ["steps", "steps"], ["cfg", "cfg_scale"], ["cfg", "guidance"], ["scheduler", "scheduler"], ["strength", "strength"]]) put(id, metadata[name]);
  if (Number.isInteger(metadata.seed)) {
    put("seed", metadata.seed);
    $("random").checked = false;
  }
  set({ style: "", loras: loras.fromMetadata(metadata) });
  showFeatures();
}

/** Set prompts, for example earlier ones. */
export function setPrompts(prompt, negative) {
  put("prompt", prompt);
  put("negative", negative);
  sync();
}

/** Forget what a user has entered, after signing out. */
export function forget() {
  for (const id of ["prompt", "negative"]) $(id).value = "";
  set({ source: null, loras: [], style: "", board: "" });
  sync();
}
