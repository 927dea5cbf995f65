// Main module of the page: connects form, queue, progress and gallery. The server's state overrides local state.

import * as api from "./api.js";
import * as form from "./form.js";
import * as gallery from "./gallery.js";
import { listen } from "./socket.js";

const $ = (id) => document.getElementById(id);
const TERMINAL = new Set(["completed", "failed", "canceled"]);
const RECHECK = 3_000;

let running = null;
let pending = 0;
let online = false;
let wasOnline = false;
let queueEvents = 0; // number of queue status events received
let progressEvents = 0; // number of progress events received

/** Show a message for some seconds. */
function toast(text, kind = "error") {
  const box = document.createElement("div");
  box.className = "toast";
  box.dataset.kind = kind;
  box.textContent = text;
  const toasts = $("toasts");
  toasts.append(box);
  // Hide and show again, to move the popover above a dialog that was opened later.
  toasts.hidePopover?.();
  toasts.showPopover?.();
  setTimeout(() => box.remove(), kind === "error" ? 9_000 : 4_000);
}

// Queue

function showQueue(queue) {
  pending = queue.pending;
  running = queue.in_progress ? queue.item_id ?? running : null;
  const words = [];
  if (queue.in_progress) words.push(`${queue.in_progress} running`);
  if (pending) words.push(`${pending} waiting`);
  $("queue-text").textContent = words.join(", ") || "Queue empty";
  $("queue").toggleAttribute("data-busy", words.length > 0);
  $("cancel").disabled = !queue.in_progress;
  $("clear").disabled = !pending;
  if (!words.length) hideProgress();
  else if ($("progress").hidden) showProgress(queue.in_progress ? "Starting" : "Waiting for a worker", null);
}

/** Fetch the queue's state; the response is ignored if a newer event arrives meanwhile. */
async function refreshQueue() {
  const before = queueEvents;
  try {
    const queue = await api.queueStatus();
    if (queueEvents === before) showQueue(queue);
  } catch { /* the connection indicator shows the problem */ }
}

// Progress

function showProgress(message, percentage, image) {
  $("progress").hidden = false;
  $("progress-message").textContent = message;
  if (percentage === null || percentage === undefined) $("progress-bar").removeAttribute("value");
  else $("progress-bar").value = percentage;
  if (image) {
    $("preview").src = image.dataURL;
    $("preview").hidden = false;
  }
}

function hideProgress() {
  $("progress").hidden = true;
  clearPreview();
}

function clearPreview() {
  $("preview").hidden = true;
  $("preview").removeAttribute("src");
  $("progress-detail").textContent = "";
}

// Events

function imageNamesIn(result) {
  const names = [];
  const visit = (value) => {
    if (Array.isArray(value)) value.forEach(visit);
    else if (value && typeof value === "object") {
      if (typeof value.image_name === "string") names.push(value.image_name);
      else Object.values(value).forEach(visit);
    }
  };
  visit(result);
  return names;
}

const handlers = {
  batch_enqueued: refreshQueue,
  queue_cleared: refreshQueue,
  queue_items_canceled: refreshQueue,
  queue_items_retried: refreshQueue,
  queue_item_status_changed(data) {
    queueEvents += 1;
    if (data.queue_status) showQueue({ ...data.queue_status, item_id: data.queue_status.item_id ?? (data.status === "in_progress" ? data.item_id : null) });
    if (data.status === "in_progress") clearPreview();
    if (data.status === "failed") toast(data.error_message ? `Failed: ${data.error_message}` : "Generation failed.");
    if (TERMINAL.has(data.status) && data.item_id === running) running = null;
  },
  invocation_progress(data) {
    progressEvents += 1;
    const percent = data.percentage === null ? "" : ` ${Math.round(data.percentage * 100)} %`;
    showProgress(`${data.message}${percent}`, data.percentage, data.image);
    $("progress-detail").textContent = data.invocation?.type === "denoise_latents" ? `${data.invocation.steps} steps, ${data.invocation.scheduler}` : "";
  },
  invocation_complete(data) {
    if (!data.invocation?.is_intermediate) imageNamesIn(data.result).forEach(gallery.add);
  },
  model_install_complete: () => form.loadModels(),
};

function onState(state) {
  const reconnected = state === "online" && !online;
  online = state === "online";
  $("link").dataset.state = state;
  $("link").querySelector("span").textContent = online ? "Connected" : "Reconnecting";
  if (reconnected) {
    refreshQueue();
    if (wasOnline) gallery.reload();
    wasOnline = true;
  }
}

// Actions

async function invoke() {
  if (!$("form").reportValidity()) return;
  const request = form.toRequest();
  if (!request.model) return toast("Choose a model first.");
  $("invoke").disabled = true;
  const before = progressEvents;
  try {
    const result = await api.enqueue(request);
    if (result.enqueued < result.requested) toast(`The queue is full: ${result.enqueued} of ${result.requested} were added.`);
    if (progressEvents === before && !running) showProgress("Waiting for a worker", null);
    await refreshQueue();
  } catch (error) {
    toast(error.message);
  } finally {
    $("invoke").disabled = false;
  }
}

async function act(action) {
  try { await action(); await refreshQueue(); } catch (error) { toast(error.message); }
}

$("form").addEventListener("submit", (event) => { event.preventDefault(); invoke(); });
$("cancel").addEventListener("click", () => act(async () => {
  const id = running ?? (await api.queueStatus()).item_id;
  if (id) await api.cancelItem(id);
}));
$("clear").addEventListener("click", () => act(api.cancelWaiting));
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !$("viewer").open) { event.preventDefault(); invoke(); }
});

gallery.prepare({
  report: toast,
  reuse(metadata) { form.reuse(metadata); toast("Settings copied to the form.", "note"); scrollTo({ top: 0, behavior: "smooth" }); },
  useAsInput(image) { form.setInputImage(image); toast("Image set as the input image.", "note"); scrollTo({ top: 0, behavior: "smooth" }); },
});
form.prepare(toast);
gallery.reload();
refreshQueue();
listen((name, data) => handlers[name]?.(data), onState);
// Poll for unfinished items while the socket is disconnected.
setInterval(() => { if (!online && (running || pending) && !document.hidden) refreshQueue(); }, RECHECK);
