// The gallery: an endless grid of images, newest first, and the viewer with actions on an image.

import * as api from "./api.js";

const PAGE = 60;
const STAR = '<svg viewBox="0 0 24 24" aria-hidden="true"><path d="m12 4 2.5 5.2 5.7.8-4.1 4 1 5.7L12 17l-5.1 2.7 1-5.7-4.1-4 5.7-.8Z"/></svg>';
const LABELS = {
  model: "Model", width: "Width", height: "Height", steps: "Steps", cfg_scale: "CFG scale", guidance: "Guidance", scheduler: "Scheduler", seed: "Seed",
  strength: "Strength", generation_mode: "Mode",
};
const $ = (id) => document.getElementById(id);

let images = [];
let total = 0;
let loading = false;
let done = false;
let starredOnly = false;
let shown = null;
let metadata = null;
let actions;
let generation = 0;

/** Set up the gallery; `callbacks` has report(text), reuse(metadata) and useAsInput(image). */
export function prepare(callbacks) {
  actions = callbacks;
  new IntersectionObserver(([entry]) => entry.isIntersecting && more(), { rootMargin: "600px" }).observe($("sentinel"));
  $("again").addEventListener("click", reload);
  for (const button of document.querySelectorAll("[data-view]")) button.addEventListener("click", () => show(button.dataset.view));
  prepareViewer();
}

function show(view) {
  starredOnly = view === "starred";
  for (const button of document.querySelectorAll("[data-view]")) button.setAttribute("aria-pressed", String(button.dataset.view === view));
  reload();
}

/** Remove all images from the page, for one that nobody is signed in to. */
export function clear() {
  generation += 1;
  images = [];
  total = 0;
  done = true;
  loading = false;
  $("gallery").replaceChildren();
  for (const id of ["empty", "failed"]) $(id).hidden = true;
  $("total").textContent = "";
}

/** Reload the gallery, beginning with the newest images. */
export async function reload() {
  generation += 1;
  images = [];
  total = 0;
  done = loading = false;
  $("gallery").replaceChildren();
  await more();
}

async function more() {
  if (loading || done) return;
  const started = generation;
  loading = true;
  try {
    const page = await api.images(images.length, PAGE, starredOnly);
    if (started !== generation) return;
    const matches = starredOnly ? page.items.filter((image) => image.starred) : page.items;
    const present = new Set(images.map((image) => image.image_name));
    const fresh = matches.filter((image) => !present.has(image.image_name));
    total = starredOnly ? images.length + fresh.length : page.total;
    images.push(...fresh);
    $("gallery").append(...fresh.map((image) => tile(image)));
    done = page.items.length < PAGE || matches.length < page.items.length;
    $("failed").hidden = true;
  } catch (error) {
    if (started !== generation) return;
    done = true;
    $("failed-text").textContent = error.message;
    $("failed").hidden = images.length > 0;
    if (images.length) actions.report(error.message);
  } finally {
    if (started === generation) loading = false;
  }
  count();
  if (!done && $("sentinel").getBoundingClientRect().top < innerHeight + 600) await more();
}

function count() {
  $("total").textContent = total ? `${total} ${total === 1 ? "image" : "images"}` : "";
  $("empty").hidden = images.length > 0 || loading || !$("failed").hidden;
  $("empty").querySelector("h3").textContent = starredOnly ? "Nothing starred" : "No images yet";
  $("empty").querySelector("p").hidden = starredOnly;
}

function tile(image, fresh = false) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  button.className = "tile";
  button.dataset.name = image.image_name;
  if (fresh) button.dataset.new = "";
  button.setAttribute("aria-label", `Image of ${image.created_at.slice(0, 16)}, ${image.width} by ${image.height}`);
  const thumbnail = new Image();
  thumbnail.loading = "lazy";
  thumbnail.decoding = "async";
  thumbnail.alt = "";
  thumbnail.src = api.address(image.thumbnail_url);
  button.append(thumbnail);
  button.addEventListener("click", () => open(image.image_name));
  item.append(button);
  mark(item, image.starred);
  return item;
}

function mark(item, starred) {
  item.querySelector(".badge")?.remove();
  if (!starred) return;
  const badge = document.createElement("span");
  badge.className = "badge";
  badge.innerHTML = STAR;
  item.append(badge);
}

const itemOf = (name) => $("gallery").querySelector(`[data-name="${CSS.escape(name)}"]`)?.parentElement;

/** Add a newly generated image at the front; return whether it was. */
export async function add(name) {
  if (starredOnly || images.some((image) => image.image_name === name)) return false;
  const image = await api.image(name).catch(() => null);
  if (!image || image.is_intermediate || image.image_category !== "general" || images.some((other) => other.image_name === name)) return false;
  images.unshift(image);
  total += 1;
  $("gallery").prepend(tile(image, true));
  $("failed").hidden = true;
  count();
  return true;
}

// Viewer

function prepareViewer() {
  const viewer = $("viewer");
  $("full").addEventListener("error", () => actions.report("The image file could not be loaded: it may have been deleted."));
  $("close").addEventListener("click", () => viewer.close());
  $("previous").addEventListener("click", () => step(-1));
  $("next").addEventListener("click", () => step(1));
  $("star").addEventListener("click", () => attempt(toggleStar));
  $("delete").addEventListener("click", () => attempt(remove));
  $("reuse").addEventListener("click", () => { actions.reuse(metadata); viewer.close(); });
  $("use").addEventListener("click", () => { actions.useAsInput(current()); viewer.close(); });
  viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
  viewer.addEventListener("close", () => {
    itemOf(shown)?.querySelector(".tile").focus();
    shown = null;
  });
  viewer.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    else if (event.key === "ArrowRight") step(1);
    else if (event.key === "Delete") $("delete").click();
    else if (event.key === "s") $("star").click();
  });
}

const current = () => images.find((image) => image.image_name === shown);

async function attempt(action) {
  try { await action(current()); } catch (error) { if (error.status !== 401) actions.report(error.message); }
}

async function step(by) {
  const at = images.findIndex((image) => image.image_name === shown) + by;
  if (at >= images.length - 3) more();
  if (images[at]) open(images[at].image_name);
}

/** Show an image of the gallery in the viewer. */
export async function open(name) {
  shown = name;
  metadata = null;
  const image = current();
  if (!image) return;
  const at = images.indexOf(image);
  $("full").src = api.address(image.image_url);
  $("viewer-title").textContent = `${image.width} × ${image.height}`;
  $("download").href = api.address(image.image_url);
  $("download").download = name;
  $("star").setAttribute("aria-pressed", String(image.starred));
  $("star").querySelector("span").textContent = image.starred ? "Starred" : "Star";
  $("previous").disabled = at === 0;
  $("next").disabled = at === images.length - 1 && done;
  $("reuse").disabled = true;
  confirmDelete(false);
  $("metadata").replaceChildren();
  if (!$("viewer").open) $("viewer").showModal();
  const loaded = await api.metadata(name).catch(() => null);
  if (shown !== name) return;
  metadata = loaded;
  $("reuse").disabled = !loaded;
  $("full").alt = loaded?.positive_prompt || "Image without a prompt";
  describe(image, loaded ?? {});
}

function describe(image, values) {
  const rows = [];
  const row = (label, value, kind) => {
    const term = document.createElement("dt");
    const text = document.createElement("dd");
    term.textContent = label;
    text.textContent = value;
    if (kind) text.className = kind;
    if (kind === "wide") term.className = "wide";
    rows.push(term, text);
  };
  if (values.positive_prompt) row("Prompt", values.positive_prompt, "wide");
  if (values.negative_prompt) row("Negative prompt", values.negative_prompt, "wide");
  for (const [name, label] of Object.entries(LABELS)) {
    const value = name === "model" ? values.model?.name : values[name];
    if (value !== undefined && value !== null && value !== "") row(label, String(value), "number");
  }
  row("Created", `${image.created_at.slice(0, 19)} UTC`, "number");
  $("metadata").replaceChildren(...rows);
}

async function toggleStar(image) {
  await api.star(image.image_name, !image.starred);
  image.starred = !image.starred;
  const item = itemOf(image.image_name);
  if (item) mark(item, image.starred);
  if (shown === image.image_name) {
    $("star").setAttribute("aria-pressed", String(image.starred));
    $("star").querySelector("span").textContent = image.starred ? "Starred" : "Star";
  }
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
  const at = images.indexOf(image);
  images.splice(at, 1);
  total -= 1;
  itemOf(image.image_name)?.remove();
  count();
  const next = images[at] ?? images[at - 1];
  if (next) open(next.image_name);
  else $("viewer").close();
}
