// Main module of the page: connects sign-in, form, queue, progress and gallery. The server's state overrides local state.

import * as api from "./api.js";
import * as form from "./form.js";
import * as gallery from "./gallery.js";
import { dismissAll, toast } from "./notices.js";
import * as runs from "./runs.js";
import * as session from "./session.js";
import { listen } from "./socket.js";

const $ = (id) => document.getElementById(id);
const RECHECK = 3_000;

let running = null;
let pending = 0;
let online = false;
let wasOnline = false;
let entered = false; // whether the page may be used: somebody is signed in, or there are no accounts
let disconnect = () => {};
let userId = null;
let queueEvents = 0; // number of queue status events received
let progressEvents = 0; // number of progress events received

// Queue

function showQueue(queue, paused = false) {
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
  else if ($("progress").hidden || $("progress").hasAttribute("data-waiting")) {
    if (queue.in_progress) showProgress("Starting", null);
    else showWaiting(paused ? "The queue is paused" : "Waiting for a worker");
  }
}

/** Fetch the queue's state; the response is ignored if a newer event arrives meanwhile. */
async function refreshQueue() {
  const before = queueEvents;
  try {
    const { queue, processor } = await api.queueStatus();
    if (queueEvents === before) showQueue(queue, !processor.is_started);
  } catch { /* the connection indicator shows the problem */ }
}

// Progress

function showProgress(message, percentage, image) {
  $("progress").hidden = false;
  $("progress").removeAttribute("data-waiting");
  $("progress-message").textContent = message;
  if (percentage === null || percentage === undefined) $("progress-bar").removeAttribute("value");
  else $("progress-bar").value = percentage;
  if (image) {
    $("preview").src = image.dataURL;
    $("preview").hidden = false;
  }
}

/** Show a state that the next report of the queue replaces. */
function showWaiting(message) {
  showProgress(message, null);
  $("progress").setAttribute("data-waiting", "");
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

/** Whether an event is about this user's item: an administrator gets those of others too. */
const isOwn = (data) => !userId || data.user_id === userId;

const handlers = {
  batch_enqueued: refreshQueue,
  queue_cleared: refreshQueue,
  queue_items_canceled: refreshQueue,
  queue_items_retried: refreshQueue,
  queue_item_status_changed(data) {
    queueEvents += 1;
    if (data.queue_status) showQueue({ ...data.queue_status, item_id: data.queue_status.item_id ?? (data.status === "in_progress" ? data.item_id : null) });
    if (!isOwn(data)) return;
    if (data.status === "in_progress") {
      runs.follow([data.item_id]);
      clearPreview();
    }
    if (data.status === "failed") runs.reportFailure(data.error_message, [data.item_id]);
    if (!runs.isTerminal(data.status)) return;
    runs.end(data.item_id);
    if (data.item_id === running) running = null;
  },
  invocation_progress(data) {
    if (!isOwn(data)) return;
    progressEvents += 1;
    const percent = data.percentage === null ? "" : ` ${Math.round(data.percentage * 100)} %`;
    showProgress(`${data.message}${percent}`, data.percentage, data.image);
    $("progress-detail").textContent = data.invocation?.type === "denoise_latents" ? `${data.invocation.steps} steps, ${data.invocation.scheduler}` : "";
  },
  invocation_complete(data) {
    if (isOwn(data) && !data.invocation?.is_intermediate) imageNamesIn(data.result).forEach(addImage);
  },
  model_install_complete: () => form.loadModels(),
};

/** Add a new image to the gallery; where the gallery is out of sight, offer to show it. */
async function addImage(name) {
  const isNew = await gallery.add(name);
  if (isNew && !$("viewer").open && $("gallery").getBoundingClientRect().top > innerHeight - 120) {
    toast("The image is ready.", "note", { action: { label: "Show", run: () => gallery.open(name) } });
  }
}

/** Show the connection's state in the header, and a lost connection also above the page's content. */
function showLink(state, problem = "") {
  $("link").dataset.state = state;
  $("link").querySelector("span").textContent = { online: "Connected", connecting: "Connecting", out: "Not connected" }[state] ?? "Reconnecting";
  $("problem").hidden = !problem;
  $("problem-text").textContent = problem;
}

function onState(state, refusal) {
  const reconnected = state === "online" && !online;
  online = state === "online";
  if (state === "refused") {
    showLink("offline", refusal);
    api.queueStatus().catch(() => {}); // if a sign-in is needed, this leads to it
  } else if (!online) {
    const risk = running || runs.unfinished() ? " The run in progress may be lost." : "";
    showLink("offline", `The server is not reachable.${risk} Trying again …`);
    if (!$("progress").hidden) showWaiting("Waiting for the server");
  } else showLink("online");
  if (reconnected) resume();
}

/** Fetch what may have changed while no event could arrive. */
function resume() {
  refreshQueue();
  if (wasOnline) {
    gallery.reload();
    form.loadModels();
  }
  wasOnline = true;
  runs.review().catch(() => {}); // at the next connection
}

// Sign-in

const hooks = {
  enter(user) {
    if (user && userId && user.user_id !== userId) hooks.forget();
    userId = user?.user_id ?? null;
    if (entered) return;
    entered = true;
    showLink("connecting");
    form.loadModels();
    gallery.reload();
    refreshQueue();
    disconnect = listen((name, data) => handlers[name]?.(data), onState, api.currentToken);
  },
  leave() {
    entered = online = wasOnline = false;
    disconnect();
    running = null;
    pending = 0;
    hideProgress();
    dismissAll();
    if ($("viewer").open) $("viewer").close();
    gallery.clear();
    form.clearModels();
    $("queue-text").textContent = "Signed out";
    showLink("out");
  },
  /** Forget the user's entries, after signing out on purpose. */
  forget() {
    runs.forget();
    form.forget();
  },
  waiting(problem) { showLink("offline", `${problem} Trying again …`); },
};

// Actions

async function invoke() {
  if (!$("form").reportValidity()) return;
  const request = form.toRequest();
  if (!request.model) return toast("Choose a model first.");
  dismissAll();
  $("invoke").disabled = true;
  const before = progressEvents;
  try {
    const result = await api.enqueue(request);
    runs.follow(result.item_ids);
    if (result.enqueued < result.requested) toast(`The queue is full: ${result.enqueued} of ${result.requested} were added.`);
    if (progressEvents === before && !running) showWaiting("Waiting for a worker");
    await refreshQueue();
  } catch (error) {
    if (error.status !== 401) toast(error.message);
  } finally {
    $("invoke").disabled = !form.isReady();
  }
}

async function act(action) {
  try { await action(); await refreshQueue(); } catch (error) { if (error.status !== 401) toast(error.message); }
}

$("form").addEventListener("submit", (event) => { event.preventDefault(); invoke(); });
$("cancel").addEventListener("click", () => act(async () => {
  const id = running ?? (await api.queueStatus()).queue.item_id;
  if (!id) return;
  runs.stop(id);
  await api.cancelItem(id);
}));
$("clear").addEventListener("click", () => act(() => { runs.stop(); return api.cancelWaiting(); }));
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !document.querySelector("dialog[open]")) { event.preventDefault(); invoke(); }
});

gallery.prepare({
  report: toast,
  reuse(metadata) { form.reuse(metadata); toast("Settings copied to the form.", "note"); scrollTo({ top: 0, behavior: "smooth" }); },
  useAsInput(image) { form.setInputImage(image); toast("Image set as the input image.", "note"); scrollTo({ top: 0, behavior: "smooth" }); },
});
form.prepare(toast);
session.prepare(hooks);
session.start();
// Poll for unfinished items while the socket is disconnected.
setInterval(() => { if (!online && (running || pending) && !document.hidden) refreshQueue(); }, RECHECK);
