// The mask editor: a brush over an image, for mouse, pen, touch and keyboard. Masks are white where the image is kept.

import * as api from "./api.js";
import { $ } from "./dom.js";
import { open } from "./dialogs.js";
import { attempt, toast } from "./notices.js";

const COLORS = ["#ff3d71", "#240046"]; // of the stripes, which are seen on images of any color
const STRIPES = 80; // per long side
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const canvas = $("mask-canvas");
const context = canvas.getContext("2d", { willReadFrequently: true });

let color = ""; // pattern of the mask
let edits = []; // strokes { erase, size, points }, "clear" and "invert", in order
let stroke = null; // the one being painted
let pen = null; // position of the keyboard's brush in pixels; null until it is used
let finish = null; // ends the editing with a mask, null (no mask) or undefined (canceled)

/** Edit the mask of an image; return the new one, null if it is empty, or undefined if the user cancels. */
export async function editMask(image, mask) {
  edits = [...mask?.edits ?? []];
  stroke = pen = null;
  $("mask-image").src = api.address(image.image_url);
  open("mask");
  try { await $("mask-image").decode(); } catch {
    $("mask").close();
    toast("The image could not be loaded.");
    return undefined;
  }
  [canvas.width, canvas.height] = [$("mask-image").naturalWidth, $("mask-image").naturalHeight];
  color = stripes(Math.max(2, Math.round(longSide() / STRIPES)));
  setErase(false);
  layOut();
  redraw();
  canvas.focus();
  return new Promise((resolve) => { finish = resolve; });
}

export function prepare() {
  new ResizeObserver(layOut).observe($("mask-stage"));
  canvas.addEventListener("pointerdown", begin);
  canvas.addEventListener("pointermove", move);
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, end);
  canvas.addEventListener("pointerleave", () => { if (!pen) $("mask-cursor").hidden = true; });
  canvas.addEventListener("keydown", press);
  canvas.addEventListener("blur", () => { end(); pen = null; $("mask-cursor").hidden = true; });
  $("mask-size").addEventListener("input", () => { if (pen) showCursor(...pen); });
  $("mask-brush").addEventListener("click", () => setErase(false));
  $("mask-eraser").addEventListener("click", () => setErase(true));
  $("mask-undo").addEventListener("click", undo);
  $("mask-clear").addEventListener("click", () => add("clear"));
  $("mask-invert").addEventListener("click", () => add("invert"));
  $("mask-done").addEventListener("click", done);
  $("mask").addEventListener("close", () => finish?.(undefined));
  $("mask").addEventListener("keydown", (event) => {
    if (event.key === "z" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); undo(); }
  });
}

/** Fit the image into the stage. */
function layOut() {
  if (!canvas.width || !$("mask").open) return;
  const { clientWidth, clientHeight } = $("mask-stage");
  const scale = Math.min(clientWidth / canvas.width, clientHeight / canvas.height);
  $("mask-sheet").style.width = `${canvas.width * scale}px`;
  $("mask-sheet").style.height = `${canvas.height * scale}px`;
}

// Drawing

/** Return a pattern of diagonal stripes. */
function stripes(width) {
  const tile = document.createElement("canvas");
  tile.width = tile.height = 2 * width;
  const surface = tile.getContext("2d");
  surface.fillStyle = COLORS[0];
  surface.fillRect(0, 0, 2 * width, 2 * width);
  surface.strokeStyle = COLORS[1];
  surface.lineWidth = width / Math.SQRT2;
  surface.beginPath();
  for (const shift of [-1, 0, 1]) {
    surface.moveTo(2 * width * shift - width, 3 * width);
    surface.lineTo(2 * width * shift + 3 * width, -width);
  }
  surface.stroke();
  return context.createPattern(tile, "repeat");
}

const longSide = () => Math.max(canvas.width, canvas.height);
const brushSize = () => (Number($("mask-size").value) / 100) * longSide();
const isErasing = () => $("mask-eraser").getAttribute("aria-pressed") === "true";

function setErase(erase) {
  $("mask-brush").setAttribute("aria-pressed", String(!erase));
  $("mask-eraser").setAttribute("aria-pressed", String(erase));
}

/** Draw a stroke from the point with number `from` on. */
function draw({ erase, size, points }, from = 0) {
  context.globalCompositeOperation = erase ? "destination-out" : "source-over";
  context.strokeStyle = color;
  context.lineWidth = size;
  context.lineCap = context.lineJoin = "round";
  context.beginPath();
  context.moveTo(...points[Math.max(0, from - 1)]);
  for (const point of points.slice(from)) context.lineTo(...point);
  context.stroke();
}

function redraw() {
  context.globalCompositeOperation = "source-over";
  context.clearRect(0, 0, canvas.width, canvas.height);
  for (const edit of edits) apply(edit);
  $("mask-undo").disabled = !edits.length;
}

function apply(edit) {
  if (edit === "clear") context.clearRect(0, 0, canvas.width, canvas.height);
  else if (edit === "invert") {
    context.globalCompositeOperation = "xor";
    context.fillStyle = color;
    context.fillRect(0, 0, canvas.width, canvas.height);
  } else draw(edit);
}

function add(edit) {
  edits.push(edit);
  redraw();
}

function undo() {
  end();
  edits.pop();
  redraw();
}

// Pointers

function positionOf(event) {
  const box = canvas.getBoundingClientRect();
  return [((event.clientX - box.left) / box.width) * canvas.width, ((event.clientY - box.top) / box.height) * canvas.height];
}

function begin(event) {
  if (!event.isPrimary || event.button > 0) return;
  event.preventDefault();
  pen = null;
  canvas.focus();
  try { canvas.setPointerCapture(event.pointerId); } catch { /* a pointer that is gone */ }
  start(positionOf(event));
}

function start(point) {
  stroke = { erase: isErasing(), size: brushSize(), points: [point] };
  draw(stroke);
}

function move(event) {
  if (!event.isPrimary) return;
  showCursor(...positionOf(event));
  if (!stroke) return;
  const from = stroke.points.length;
  const events = event.getCoalescedEvents?.() ?? [];
  stroke.points.push(...(events.length ? events : [event]).map(positionOf));
  draw(stroke, from);
}

function end() {
  if (!stroke) return;
  edits.push(stroke);
  stroke = null;
  $("mask-undo").disabled = false;
  $("mask-state").textContent = "";
}

function showCursor(x, y) {
  const scale = canvas.clientWidth / canvas.width;
  const cursor = $("mask-cursor");
  cursor.hidden = false;
  cursor.style.width = cursor.style.height = `${brushSize() * scale}px`;
  cursor.style.translate = `calc(${x * scale}px - 50%) calc(${y * scale}px - 50%)`;
}

// Keyboard

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const arrow = ARROWS[event.key];
  if (arrow) {
    const step = (event.shiftKey ? 0.1 : 0.02) * longSide();
    pen ??= [canvas.width / 2, canvas.height / 2];
    pen = pen.map((value, axis) => Math.min(axis ? canvas.height : canvas.width, Math.max(0, value + arrow[axis] * step)));
    if (stroke) {
      stroke.points.push(pen);
      draw(stroke, stroke.points.length - 1);
    }
  } else if (event.key === " ") {
    pen ??= [canvas.width / 2, canvas.height / 2];
    if (stroke) end();
    else start(pen);
    $("mask-state").textContent = stroke ? "The brush is down" : "The brush is up";
  } else if (event.key === "e") setErase(!isErasing());
  else if (event.key === "[") $("mask-size").stepDown();
  else if (event.key === "]") $("mask-size").stepUp();
  else return;
  event.preventDefault();
  if (pen) showCursor(...pen);
}

// Result

const toBlob = (surface) => new Promise((resolve) => { surface.toBlob(resolve, "image/png"); });

/** Return the mask as a black and white image file; null if nothing is painted. */
async function toFile() {
  const image = context.getImageData(0, 0, canvas.width, canvas.height);
  let painted = false;
  for (let at = 0; at < image.data.length; at += 4) {
    const isChanged = image.data[at + 3] > 127;
    painted ||= isChanged;
    image.data[at] = image.data[at + 1] = image.data[at + 2] = isChanged ? 0 : 255;
    image.data[at + 3] = 255;
  }
  if (!painted) return null;
  const surface = document.createElement("canvas");
  [surface.width, surface.height] = [canvas.width, canvas.height];
  surface.getContext("2d").putImageData(image, 0, 0);
  return new File([await toBlob(surface)], "mask.png", { type: "image/png" });
}

async function done() {
  end();
  $("mask-done").disabled = true;
  await attempt(async () => {
    const file = await toFile();
    const uploaded = file && await api.upload(file, "mask", true);
    finish(file && { name: uploaded.image_name, preview: canvas.toDataURL(), edits });
    $("mask").close();
  });
  $("mask-done").disabled = false;
}
