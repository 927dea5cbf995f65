// The gallery: pages of pictures, new ones in front, and the large view of one with what can be done to it.

import * as api from "./api.js";

const PAGE = 60;
const STAR = '<svg viewBox="0 0 24 24" aria-hidden="true"><path d="m12 4 2.5 5.2 5.7.8-4.1 4 1 5.7L12 17l-5.1 2.7 1-5.7-4.1-4 5.7-.8Z"/></svg>';
const LABELS = {
  model: "Model", width: "Width", height: "Height", steps: "Steps", cfg_scale: "CFG scale", scheduler: "Scheduler", seed: "Seed",
  strength: "Strength", generation_mode: "Mode",
};
const $ = (id) => document.getElementById(id);

let images = [];
let total = 0;
let loading = false;
let done = false;
let starredOnly = false;
let shown = null;
let facts = null;
let actions;
let generation = 0;

/** Take over the gallery; `given` has report(text), reuse(metadata) and startFrom(image). */
export function prepare(given) {
  actions = given;
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

/** Begin again with the newest pictures. */
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
  const mine = generation;
  loading = true;
  try {
    const page = await api.images(images.length, PAGE, starredOnly);
    if (mine !== generation) return;
    const found = starredOnly ? page.items.filter((image) => image.starred) : page.items;
    const known = new Set(images.map((image) => image.image_name));
    const fresh = found.filter((image) => !known.has(image.image_name));
    total = starredOnly ? images.length + fresh.length : page.total;
    images.push(...fresh);
    $("gallery").append(...fresh.map((image) => tile(image)));
    done = page.items.length < PAGE || found.length < page.items.length;
    $("failed").hidden = true;
  } catch (error) {
    if (mine !== generation) return;
    done = true;
    $("failed-text").textContent = error.message;
    $("failed").hidden = images.length > 0;
    if (images.length) actions.report(error.message);
  } finally {
    if (mine === generation) loading = false;
  }
  count();
  if (!done && $("sentinel").getBoundingClientRect().top < innerHeight + 600) await more();
}

function count() {
  $("total").textContent = total ? `${total} ${total === 1 ? "picture" : "pictures"}` : "";
  $("empty").hidden = images.length > 0 || loading || !$("failed").hidden;
  $("empty").querySelector("h3").textContent = starredOnly ? "Nothing starred" : "No pictures yet";
  $("empty").querySelector("p").hidden = starredOnly;
}

function tile(image, fresh = false) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  button.className = "tile";
  button.dataset.name = image.image_name;
  if (fresh) button.dataset.new = "";
  button.setAttribute("aria-label", `Picture of ${image.created_at.slice(0, 16)}, ${image.width} by ${image.height}`);
  const picture = new Image();
  picture.loading = "lazy";
  picture.decoding = "async";
  picture.alt = "";
  picture.src = api.address(image.thumbnail_url);
  button.append(picture);
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

/** Put a picture that was just made in front. */
export async function arrive(name) {
  if (starredOnly || images.some((image) => image.image_name === name)) return;
  const image = await api.image(name).catch(() => null);
  if (!image || image.is_intermediate || image.image_category !== "general" || images.some((other) => other.image_name === name)) return;
  images.unshift(image);
  total += 1;
  $("gallery").prepend(tile(image, true));
  $("failed").hidden = true;
  count();
}

// The large view

function prepareViewer() {
  const viewer = $("viewer");
  $("close").addEventListener("click", () => viewer.close());
  $("previous").addEventListener("click", () => step(-1));
  $("next").addEventListener("click", () => step(1));
  $("star").addEventListener("click", () => attempt(toggleStar));
  $("delete").addEventListener("click", () => attempt(remove));
  $("reuse").addEventListener("click", () => { actions.reuse(facts); viewer.close(); });
  $("use").addEventListener("click", () => { actions.startFrom(current()); viewer.close(); });
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
  try { await action(current()); } catch (error) { actions.report(error.message); }
}

async function step(by) {
  const at = images.findIndex((image) => image.image_name === shown) + by;
  if (at >= images.length - 3) more();
  if (images[at]) open(images[at].image_name);
}

async function open(name) {
  shown = name;
  facts = null;
  const image = current();
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
  ask(false);
  $("metadata").replaceChildren();
  if (!$("viewer").open) $("viewer").showModal();
  const found = await api.metadata(name).catch(() => null);
  if (shown !== name) return;
  facts = found;
  $("reuse").disabled = !found;
  $("full").alt = found?.positive_prompt || "A picture without a prompt";
  describe(image, found ?? {});
}

function describe(image, found) {
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
  if (found.positive_prompt) row("Prompt", found.positive_prompt, "wide");
  if (found.negative_prompt) row("Negative prompt", found.negative_prompt, "wide");
  for (const [name, label] of Object.entries(LABELS)) {
    const value = name === "model" ? found.model?.name : found[name];
    if (value !== undefined && value !== null && value !== "") row(label, String(value), "number");
  }
  row("Made", `${image.created_at.slice(0, 19)} UTC`, "number");
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

/** Turn the delete button into a question, or back. */
function ask(sure) {
  const button = $("delete");
  button.toggleAttribute("data-sure", sure);
  button.querySelector("span").textContent = sure ? "Really delete?" : "Delete";
}

async function remove(image) {
  if (!$("delete").hasAttribute("data-sure")) {
    ask(true);
    return;
  }
  ask(false);
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
