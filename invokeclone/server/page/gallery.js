// The gallery: an endless grid of images, newest first, of a board, a view and a search.

import * as api from "./api.js";
import * as boards from "./boards.js";
import { $, debounce, element, icon } from "./dom.js";
import { toast } from "./notices.js";
import { on, state } from "./state.js";
import * as viewer from "./viewer.js";

const PAGE = 60;
const MISSED = 10;

let images = [];
let total = 0;
let loading = false;
let done = false;
let view = "all";
let generation = 0;

export function prepare() {
  new IntersectionObserver(([entry]) => state.entered && entry.isIntersecting && more(), { rootMargin: "600px" }).observe($("sentinel"));
  $("again").addEventListener("click", reload);
  $("search").addEventListener("input", debounce(reload, 250));
  on(["board"], () => state.entered && reload());
  for (const button of document.querySelectorAll("[data-view]")) button.addEventListener("click", () => show(button.dataset.view));
}

function show(chosen) {
  view = chosen;
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
  clear();
  done = false;
  await more();
}

const words = () => $("search").value.trim();
const category = () => (view === "uploads" ? "user" : "general");
const filter = () => ({ categories: category(), starred_first: view === "starred", board_id: state.board, search_term: words() });

export async function more() {
  if (loading || done) return;
  const started = generation;
  const isStarred = view === "starred";
  loading = true;
  try {
    const page = await api.images(images.length, PAGE, filter());
    if (started !== generation) return;
    const matches = isStarred ? page.items.filter((image) => image.starred) : page.items;
    const present = new Set(images.map((image) => image.image_name));
    const fresh = matches.filter((image) => !present.has(image.image_name));
    total = isStarred ? images.length + fresh.length : page.total;
    images.push(...fresh);
    $("gallery").append(...fresh.map((image) => tile(image)));
    done = page.items.length < PAGE || matches.length < page.items.length;
    $("failed").hidden = true;
  } catch (error) {
    if (started !== generation) return;
    done = true;
    $("failed-text").textContent = error.message;
    $("failed").hidden = images.length > 0;
    if (images.length) toast(error.message);
  } finally {
    if (started === generation) loading = false;
  }
  count();
  if (!done && $("sentinel").getBoundingClientRect().top < innerHeight + 600) await more();
}

function count() {
  $("total").textContent = total ? `${total} ${total === 1 ? "image" : "images"}` : "";
  $("empty").hidden = images.length > 0 || loading || !$("failed").hidden;
  const isFirst = view === "all" && !words() && !state.board;
  $("empty").querySelector("h3").textContent = words() ? "Nothing found" : { starred: "Nothing starred", uploads: "No uploads", all: state.board ? "No images on this board" : "No images yet" }[view];
  $("empty").querySelector("p").hidden = !isFirst;
}

function tile(image, isNew = false) {
  const thumbnail = element("img", { loading: "lazy", decoding: "async", alt: "", src: api.address(image.thumbnail_url) });
  const button = element("button", {
    type: "button", className: "tile", onclick: () => viewer.open(image.image_name), "data-name": image.image_name,
    "aria-label": `Image of ${image.created_at.slice(0, 16)}, ${image.width} by ${image.height}`,
  }, thumbnail);
  if (isNew) button.dataset.new = "";
  const item = element("li", {}, button);
  mark(item, image.starred);
  return item;
}

function mark(item, starred) {
  item.querySelector(".badge")?.remove();
  if (starred) item.append(element("span", { className: "badge" }, icon("star")));
}

const itemOf = (name) => $("gallery").querySelector(`[data-name="${CSS.escape(name)}"]`)?.parentElement;

/** Add a newly generated image at the front; return whether it was, which depends on what the gallery shows. */
export async function add(name) {
  const started = generation;
  const isPresent = () => images.some((image) => image.image_name === name);
  if (view !== "all" || words() || isPresent()) return false;
  const image = await api.image(name).catch(() => null);
  const isListed = image && !image.is_intermediate && image.image_category === "general" && (!state.board || (image.board_id ?? "none") === state.board);
  if (!isListed || started !== generation || isPresent()) return false;
  insert(image);
  return true;
}

function insert(image) {
  images.unshift(image);
  total += 1;
  $("gallery").prepend(tile(image, true));
  count();
}

/** Add the newest images that no event has reported: those made after the list was read and before the connection. */
export async function addMissed() {
  const started = generation;
  if (view !== "all" || words()) return;
  const page = await api.images(0, MISSED, filter()).catch(() => null);
  if (!page || started !== generation) return;
  const present = new Set(images.map((image) => image.image_name));
  page.items.filter((image) => !present.has(image.image_name)).reverse().forEach(insert);
}

// For the viewer

/** Return an image and its position in the list. */
export function find(name) {
  const at = images.findIndex((image) => image.image_name === name);
  return { image: images[at], at, isLast: at === images.length - 1 && done };
}

/** Return the image at a position, loading more near the end. */
export function imageAt(at) {
  if (at >= images.length - 3) more();
  return images[at];
}

export const focus = (name) => itemOf(name)?.querySelector(".tile").focus();

/** Show a change of an image's star. */
export function update(image) {
  const item = itemOf(image.image_name);
  if (item) mark(item, image.starred);
}

/** Take an image off the list; return the one to show next. */
export function remove(image) {
  const at = images.indexOf(image);
  images.splice(at, 1);
  total -= 1;
  itemOf(image.image_name)?.remove();
  count();
  boards.reload();
  return images[at] ?? images[at - 1];
}
