// The viewer: an image with its settings, and what can be done with it.

import * as api from "./api.js";
import * as boards from "./boards.js";
import { $, element } from "./dom.js";
import * as dialogs from "./dialogs.js";
import * as gallery from "./gallery.js";
import { attempt } from "./notices.js";
import { on, state } from "./state.js";
import * as variations from "./variations.js";

const LABELS = {
  model: "Model", width: "Width", height: "Height", steps: "Steps", cfg_scale: "CFG scale", guidance: "Guidance", scheduler: "Scheduler", seed: "Seed",
  strength: "Strength", generation_mode: "Mode",
};

let shown = null; // name of the image
let metadata = null;
let actions;

/** Set up the viewer; `callbacks` has reuse(metadata), useAsInput(image), inpaint(image), enqueue(request). */
export function prepare(callbacks) {
  actions = callbacks;
  const viewer = $("viewer");
  const onClick = (id, action) => $(id).addEventListener("click", () => attempt(() => action(gallery.find(shown).image)));
  $("previous").addEventListener("click", () => step(-1));
  $("next").addEventListener("click", () => step(1));
  onClick("star", toggleStar);
  onClick("delete", remove);
  onClick("reuse", () => { viewer.close(); actions.reuse(metadata); });
  onClick("use", (image) => { viewer.close(); actions.useAsInput(image); });
  onClick("inpaint", (image) => { viewer.close(); return actions.inpaint(image); });
  onClick("vary", (image) => actions.enqueue(variations.vary(image, metadata, Number($("vary-strength").value))));
  onClick("upscale", (image) => actions.enqueue(variations.upscale(image, metadata)));
  on(["model"], () => { if (shown) showActions(metadata); });
  $("viewer-board").addEventListener("change", () => attempt(() => move(gallery.find(shown).image)));
  viewer.addEventListener("close", () => {
    gallery.focus(shown);
    shown = null;
  });
  viewer.addEventListener("keydown", (event) => {
    if (event.target.matches("select, input")) return;
    if (event.key === "ArrowLeft") step(-1);
    else if (event.key === "ArrowRight") step(1);
    else if (event.key === "Delete") $("delete").click();
    else if (event.key === "s") $("star").click();
  });
}

function step(by) {
  const image = gallery.imageAt(gallery.find(shown).at + by);
  if (image) open(image.image_name);
}

/** Show an image of the gallery in the viewer. */
export async function open(name) {
  const { image, at, isLast } = gallery.find(name);
  if (!image) return;
  shown = name;
  metadata = null;
  $("full").src = api.address(image.image_url);
  $("full").alt = "Image";
  $("viewer-title").textContent = `${image.width} × ${image.height}`;
  $("download").href = api.address(image.image_url);
  $("download").download = name;
  $("previous").disabled = at === 0;
  $("next").disabled = isLast;
  $("reuse").disabled = true;
  showStar(image);
  confirmDelete(false);
  $("viewer-board").replaceChildren(new Option("No board", "none"), ...boards.options());
  $("viewer-board").value = image.board_id ?? "none";
  showActions(null);
  dialogs.open("viewer");
  const loaded = await api.metadata(name).catch(() => null);
  if (shown !== name) return;
  metadata = loaded;
  showActions(metadata);
  describe(image, loaded ?? {});
}

/** Show what the models can do with the image. */
function showActions(values) {
  $("reuse").disabled = !values;
  $("full").alt = values?.positive_prompt || "Image without a prompt";
  const can = state.model?.features ?? {};
  $("use").hidden = !can.image_to_image && !can.inpaint;
  $("inpaint").hidden = !can.inpaint;
  const isPossible = variations.isPossible(values);
  for (const id of ["vary", "vary-strength", "upscale"]) $(id).disabled = !isPossible;
}

function describe(image, values) {
  const rows = [];
  const row = (label, value, kind) => {
    const isWide = kind === "wide";
    rows.push(element("dt", { className: isWide ? kind : "" }, label), element("dd", { className: kind }, String(value)));
  };
  if (values.positive_prompt) row("Prompt", values.positive_prompt, "wide");
  if (values.negative_prompt) row("Negative prompt", values.negative_prompt, "wide");
  for (const [name, label] of Object.entries(LABELS)) {
    const value = name === "model" ? values.model?.name : values[name];
    if (value !== undefined && value !== null && value !== "") row(label, value, "number");
  }
  for (const { model, weight } of values.loras ?? []) row(`LoRA ${model?.name ?? ""}`, weight, "number");
  row("Created", `${image.created_at.slice(0, 19)} UTC`, "number");
  $("metadata").replaceChildren(...rows);
}

function showStar({ starred }) {
  $("star").setAttribute("aria-pressed", String(starred));
  $("star").querySelector("span").textContent = starred ? "Starred" : "Star";
}

async function toggleStar(image) {
  await api.star(image.image_name, !image.starred);
  image.starred = !image.starred;
  gallery.update(image);
  if (shown === image.image_name) showStar(image);
}

async function move(image) {
  const board = $("viewer-board").value;
  await api.moveImage(image.image_name, board);
  image.board_id = board === "none" ? null : board;
  boards.reload();
  if (!state.board || state.board === board) return;
  showNext(gallery.remove(image));
}

function showNext(image) {
  if (image) open(image.image_name);
  else $("viewer").close();
}

/** Switch the delete button to its confirmation state, or back. */
function confirmDelete(isConfirming) {
  const button = $("delete");
  button.toggleAttribute("data-confirming", isConfirming);
  button.querySelector("span").textContent = isConfirming ? "Really delete?" : "Delete";
}

async function remove(image) {
  if (!$("delete").hasAttribute("data-confirming")) {
    confirmDelete(true);
    return;
  }
  confirmDelete(false);
  await api.removeImage(image.image_name);
  showNext(gallery.remove(image));
}
