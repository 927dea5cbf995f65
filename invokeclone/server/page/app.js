// Main module of the page: sets up the others, connects them, and handles the server's events.

import * as api from "./api.js";
import * as boards from "./boards.js";
import * as dialogs from "./dialogs.js";
import { $ } from "./dom.js";
import * as form from "./form.js";
import * as gallery from "./gallery.js";
import * as history from "./history.js";
import * as loras from "./loras.js";
import * as manager from "./manager.js";
import * as mask from "./mask.js";
import { clearModels, loadExtras, loadModels } from "./models.js";
import { attempt, dismissAll, toast } from "./notices.js";
import * as progress from "./progress.js";
import * as queue from "./queue.js";
import * as runs from "./runs.js";
import * as session from "./session.js";
import * as sizes from "./sizes.js";
import { listen } from "./socket.js";
import * as source from "./source.js";
import { set, state } from "./state.js";
import * as styles from "./styles.js";
import * as viewer from "./viewer.js";

const RECHECK = 3_000;

let online = false;
let wasOnline = false;
let lastUser = null;
let disconnect = () => {};
let loading = Promise.resolve(); // the first lists of this user
let progressEvents = 0; // number of progress events received

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
const isOwn = (data) => !state.user || data.user_id === state.user.user_id;

const handlers = {
  batch_enqueued: queue.refresh,
  queue_cleared: queue.refresh,
  queue_items_canceled: queue.refresh,
  queue_items_retried: queue.refresh,
  queue_item_status_changed: (data) => queue.onStatus(data, isOwn(data)),
  invocation_progress(data) {
    if (!isOwn(data)) return;
    progressEvents += 1;
    progress.report(data);
  },
  invocation_complete(data) {
    if (isOwn(data) && !data.invocation?.is_intermediate) imageNamesIn(data.result).forEach(addImage);
  },
};

function onEvent(name, data) {
  if (name.startsWith("model_install_")) manager.onEvent(name, data);
  else handlers[name]?.(data);
}

/** Add a new image to the gallery; where the gallery is out of sight, offer to show it. */
async function addImage(name) {
  const isNew = await gallery.add(name);
  if (isNew) boards.reload();
  if (isNew && !document.querySelector("dialog[open]") && $("gallery").getBoundingClientRect().top > innerHeight - 120) {
    toast("The image is ready.", "note", { action: { label: "Show", run: () => viewer.open(name) } });
  }
}

/** Show the connection's state in the header, and a lost connection also above the page's content. */
function showLink(value, problem = "") {
  $("link").dataset.state = value;
  $("link").querySelector("span").textContent = { online: "Connected", connecting: "Connecting", out: "Not connected" }[value] ?? "Reconnecting";
  $("problem").hidden = !problem;
  $("problem-text").textContent = problem;
}

function onState(value, refusal) {
  const reconnected = value === "online" && !online;
  online = value === "online";
  if (value === "refused") {
    showLink("offline", refusal);
    api.queueStatus().catch(() => {}); // if a sign-in is needed, this leads to it
  } else if (!online) {
    const risk = queue.isRunning() || runs.unfinished() ? " The run in progress may be lost." : "";
    showLink("offline", `The server is not reachable.${risk} Trying again …`);
    if (progress.isShown()) progress.showWaiting("Waiting for the server");
  } else showLink("online");
  if (reconnected) resume();
}

/** Fetch what may have changed while no event could arrive. */
function resume() {
  queue.refresh();
  if (wasOnline) load();
  else loading.then(gallery.addMissed);
  wasOnline = true;
  runs.review().catch(() => {}); // at the next connection
}

/** Load the lists, first what the page cannot be used without. */
async function load() {
  await Promise.all([loadModels(), gallery.reload()]);
  if (!state.entered) return;
  await Promise.all([loadExtras(), boards.loadBoards(), styles.loadPresets()]);
}

// Sign-in

const hooks = {
  enter(user) {
    if (user && lastUser && user.user_id !== lastUser) hooks.forget();
    lastUser = user?.user_id ?? null;
    if (state.entered) return;
    set({ entered: true, user });
    showLink("connecting");
    loading = load();
    disconnect = listen(onEvent, onState, api.currentToken);
  },
  leave() {
    online = wasOnline = false;
    disconnect();
    set({ entered: false, boards: [], presets: [] });
    queue.clear("Signed out");
    dismissAll();
    dialogs.closeAll();
    gallery.clear();
    clearModels();
    showLink("out");
  },
  /** Forget the user's entries, after signing out on purpose. */
  forget() {
    runs.forget();
    history.forget();
    form.forget();
  },
  waiting(problem) { showLink("offline", `${problem} Trying again …`); },
};

// Actions

async function enqueue(request) {
  const before = progressEvents;
  const result = await api.enqueue(request);
  runs.follow(result.item_ids);
  if (result.enqueued < result.requested) toast(`The queue is full: ${result.enqueued} of ${result.requested} were added.`);
  if (progressEvents === before && !queue.isRunning()) progress.showWaiting("Waiting for a worker");
  await queue.refresh();
}

async function invoke() {
  if (!$("form").reportValidity()) return;
  if (!state.model) return toast("Choose a model first.");
  dismissAll();
  $("invoke").disabled = true;
  await attempt(async () => {
    await enqueue(form.toRequest());
    history.remember($("prompt").value, $("negative").value);
  });
  $("invoke").disabled = !state.model;
}

const toForm = (text) => {
  toast(text, "note");
  scrollTo({ top: 0, behavior: "smooth" });
};

$("form").addEventListener("submit", (event) => { event.preventDefault(); invoke(); });
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !document.querySelector("dialog[open]")) { event.preventDefault(); invoke(); }
});

for (const module of [dialogs, loras, styles, source, mask, boards, gallery, history, queue, manager, form, sizes]) module.prepare();
viewer.prepare({
  reuse(metadata) { form.reuse(metadata); toForm("Settings copied to the form."); },
  useAsInput(image) { source.setSource(image); toForm("Image set as the input image."); },
  inpaint: (image) => source.inpaint(image),
  async enqueue(request) { await enqueue(request); toast(`Added to the queue: ${request.width} × ${request.height}.`, "note"); },
});
session.prepare(hooks);
session.start();
// Poll for unfinished items while the socket is disconnected.
setInterval(() => { if (!online && queue.isBusy() && !document.hidden) queue.refresh(); }, RECHECK);
