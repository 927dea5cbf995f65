// The input image of the form: chosen, dropped or sent from the gallery, with an optional mask.

import * as api from "./api.js";
import { $, element } from "./dom.js";
import { editMask } from "./mask.js";
import { attempt } from "./notices.js";
import { features, on, set, state } from "./state.js";

export function prepare() {
  const box = $("source-drop");
  box.addEventListener("click", () => $("source-file").click());
  $("source-file").addEventListener("change", () => { upload($("source-file").files[0]); $("source-file").value = ""; });
  box.addEventListener("dragover", (event) => { event.preventDefault(); box.dataset.over = ""; });
  box.addEventListener("dragleave", () => { delete box.dataset.over; });
  box.addEventListener("drop", (event) => { event.preventDefault(); delete box.dataset.over; upload(event.dataTransfer.files[0]); });
  addEventListener("paste", (event) => {
    const file = [...event.clipboardData?.files ?? []].find(({ type }) => type.startsWith("image/"));
    if (file && !document.querySelector("dialog[open]") && !$("source").hidden) upload(file);
  });
  $("source-remove").addEventListener("click", () => { setSource(null); box.focus(); });
  $("mask-edit").addEventListener("click", paint);
  $("mask-remove").addEventListener("click", () => { set({ source: { ...state.source, mask: null } }); $("mask-edit").focus(); });
  on(["source", "model"], show);
  show();
}

/** Set the input image by its record, or remove it (null). */
export function setSource(image) { set({ source: image && { image, mask: null } }); }

/** Set the input image and paint a mask over it. */
export function inpaint(image) {
  if (state.source?.image.image_name !== image.image_name) setSource(image);
  return paint();
}

async function upload(file) {
  if (!file) return;
  await attempt(async () => setSource(await api.upload(file)));
}

async function paint() {
  const { image, mask } = state.source;
  const changed = await editMask(image, mask);
  if (changed !== undefined && state.source?.image === image) set({ source: { image, mask: changed } });
}

function show() {
  const { image, mask } = state.source ?? {};
  $("source-drop").replaceChildren(image
    ? element("span", { className: "stack" }, element("img", { src: api.address(image.thumbnail_url), alt: "" }), mask ? element("img", { src: mask.preview, alt: "", className: "mask" }) : null)
    : element("span", {}, "Choose, drop or paste an image"));
  if (image) $("source-drop").setAttribute("aria-label", "Choose another input image");
  else $("source-drop").removeAttribute("aria-label"); // its text is its name
  if (image) $("source").open = true;
  for (const id of ["source-remove", "strength-field"]) $(id).hidden = !image;
  $("mask-edit").hidden = !image || !features().inpaint;
  $("mask-edit").textContent = mask ? "Edit the mask" : "Paint a mask";
  $("mask-remove").hidden = !mask || !features().inpaint;
  const problem = problemOf(image, mask);
  $("source-hint").hidden = !problem;
  $("source-hint").textContent = problem;
}

/** Return what the chosen model lacks to start, or an empty text. */
function problemOf(image, mask) {
  const can = features();
  if (can.text_to_image === false && !image) return "This model changes parts of an image: choose one.";
  if (can.image_to_image === false && can.inpaint && image && !mask) return "This model changes parts of an image: paint a mask.";
  return "";
}
