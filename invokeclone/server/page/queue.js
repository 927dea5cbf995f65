// The queue: its counts in the header, and a list of its items to cancel, move or run again.

import * as api from "./api.js";
import { $, debounce, element, iconButton, render } from "./dom.js";
import * as dialogs from "./dialogs.js";
import { attempt } from "./notices.js";
import * as progress from "./progress.js";
import * as runs from "./runs.js";
import { isAdmin, state } from "./state.js";

const ENDED = 20; // number of ended items in the list
const LIMIT = 200; // number of waiting items in the list

let running = null; // id of the running item
let pending = 0;
let paused = false;
let statusEvents = 0; // number of queue status events received
let dragged = null; // id of the item that is being dragged
let moved = null; // id of the item that was moved by a key, which gets the focus back

export function prepare() {
  $("cancel").addEventListener("click", () => act(cancelRunning));
  $("clear").addEventListener("click", () => act(cancelWaiting));
  $("queue-clear").addEventListener("click", () => act(cancelWaiting));
  $("queue-pause").addEventListener("click", () => act(() => api.changeProcessor(paused ? "resume" : "pause")));
  $("queue").addEventListener("click", () => {
    dialogs.open("queue-dialog");
    showItems();
  });
}

export const isBusy = () => Boolean(running) || pending > 0;
export const isRunning = () => Boolean(running);

export function clear(text) {
  running = null;
  pending = 0;
  progress.hide();
  $("queue-text").textContent = text;
  $("queue").removeAttribute("data-busy");
  $("queue").disabled = true;
}

function showStatus(queue) {
  pending = queue.pending;
  running = queue.in_progress ? queue.item_id ?? running : null;
  const words = [];
  if (queue.in_progress) words.push(`${queue.in_progress} running`);
  if (pending) words.push(`${pending} waiting`);
  $("queue-text").textContent = words.join(", ") || "Queue empty";
  $("queue").toggleAttribute("data-busy", words.length > 0);
  $("queue").disabled = false;
  $("cancel").disabled = !queue.in_progress;
  $("clear").disabled = $("queue-clear").disabled = !pending;
  if (!words.length) progress.hide();
  else if (!progress.isShown() || progress.isWaiting()) {
    if (queue.in_progress) progress.show("Starting", null);
    else progress.showWaiting(paused ? "The queue is paused" : "Waiting for a worker");
  }
  refreshItems();
}

/** Fetch the queue's state; the response is ignored if a newer event arrives meanwhile. */
export async function refresh() {
  const before = statusEvents;
  try {
    const { queue, processor } = await api.queueStatus();
    if (statusEvents !== before) return;
    paused = !processor.is_started;
    showStatus(queue);
  } catch { /* the connection indicator shows the problem */ }
}

/** Handle the event that an item's status changed. */
export function onStatus(data, isOwn) {
  statusEvents += 1;
  if (data.queue_status) showStatus({ ...data.queue_status, item_id: data.queue_status.item_id ?? (data.status === "in_progress" ? data.item_id : null) });
  if (!isOwn) return;
  if (data.status === "in_progress") {
    runs.follow([data.item_id]);
    progress.clearPreview();
  }
  if (data.status === "failed") runs.reportFailure(data.error_message, [data.item_id]);
  if (!runs.isTerminal(data.status)) return;
  runs.end(data.item_id);
  if (data.item_id === running) running = null;
}

const act = (action) => attempt(async () => { await action(); await refresh(); });

async function cancelRunning() {
  const id = running ?? (await api.queueStatus()).queue.item_id;
  if (id) await cancelItem(id);
}

const cancelItem = (id) => runs.cancel(() => api.cancelItem(id), id);
const cancelWaiting = () => runs.cancel(api.cancelWaiting);

// The list

const refreshItems = debounce(() => { if ($("queue-dialog").open) attempt(showItems); }, 150);

async function showItems() {
  const [waiting, all] = await Promise.all([api.pendingIds(), api.itemIds()]);
  const isWaiting = new Set(waiting);
  const others = all.filter((id) => !isWaiting.has(id)).slice(0, 2 * ENDED);
  const items = await api.itemSummaries([...waiting.slice(0, LIMIT), ...others]);
  const active = items.filter(({ status }) => status === "in_progress" || status === "waiting");
  const ended = items.filter(({ status }) => runs.isTerminal(status)).slice(0, ENDED);
  const next = items.filter(({ status }) => status === "pending");
  const own = next.filter(mayChange).map(({ item_id }) => item_id);
  $("queue-empty").hidden = items.length > 0;
  $("queue-pause").hidden = !isAdmin();
  $("queue-pause").textContent = paused ? "Resume" : "Pause";
  render($("queue-items"),
    ...group("Running", active), ...group(waiting.length > LIMIT ? `Waiting (the next ${LIMIT} of ${waiting.length})` : "Waiting", next, own), ...group("Ended", ended));
  if (moved) $("queue-items").querySelector(`[data-item="${moved}"] button`)?.focus();
  moved = null;
}

/** Return a heading and a row per item; `own` has the ids of the items that can be moved, in order. */
const group = (title, items, own = []) => (items.length ? [element("li", { className: "heading" }, element("h3", {}, title)), ...items.map((item) => row(item, own))] : []);

const STATUS = { pending: "Waiting", in_progress: "Running", waiting: "Waiting for a workflow", completed: "Completed", failed: "Failed", canceled: "Canceled" };
const mayChange = (item) => !state.user || state.user.is_admin || item.user_id === state.user.user_id;

/** Return what moves an item: dragging it to another one, or Alt with an arrow key. */
function moves(id, own) {
  const at = own.indexOf(id);
  if (at < 0) return {};
  const side = () => (own.indexOf(dragged) < at ? "after" : "before");
  const isTarget = () => own.includes(dragged) && dragged !== id;
  return {
    draggable: true,
    ondragstart: (event) => { dragged = id; event.dataTransfer.setData("text/plain", `${id}`); },
    ondragover: (event) => { if (isTarget()) event.preventDefault(); },
    ondrop: (event) => {
      event.preventDefault();
      if (isTarget()) act(() => api.moveItem(dragged, side(), id));
    },
    onkeydown: (event) => {
      const step = event.altKey ? { ArrowUp: -1, ArrowDown: 1 }[event.key] : 0;
      if (!step) return;
      event.preventDefault();
      const target = own[at + step];
      if (target) act(async () => { await api.moveItem(id, step < 0 ? "before" : "after", target); moved = id; });
    },
  };
}

function row(item, own) {
  const id = item.item_id;
  const name = promptOf(item) ?? (mayChange(item) ? `Item ${id}` : "Another user's item");
  const actions = [];
  const add = (action, made) => { made.dataset.focus = `${action}-${id}`; actions.push(made); };
  if (mayChange(item)) {
    if (own.indexOf(id) > 0) add("up", iconButton("up", `Run next: ${name}`, () => act(() => api.prependItem(id))));
    if (!runs.isTerminal(item.status)) add("cancel", iconButton("cross", `Cancel: ${name}`, () => act(() => cancelItem(id))));
    if (item.status === "failed" || item.status === "canceled") add("again", iconButton("again", `Run again: ${name}`, () => act(() => api.retryItems([id]))));
  }
  const detail = [STATUS[item.status], item.device, `item ${id}`].filter(Boolean).join(" · ");
  return element("li", { "data-status": item.status, "data-item": id, ...moves(id, own) }, element("div", {}, element("span", {}, name), element("small", {}, detail)), ...actions);
}

/** Return the prompt among an item's values. */
function promptOf({ field_values: values }) {
  return values?.find(({ node_path }) => node_path === "positive_prompt")?.value || undefined;
}

