// The model manager: installed models, starter models, and installations with their progress.

import * as api from "./api.js";
import { $, button, debounce, element, formatSize, iconButton, render } from "./dom.js";
import * as dialogs from "./dialogs.js";
import { loadExtras, loadModels } from "./models.js";
import { attempt, toast } from "./notices.js";
import { isAdmin } from "./state.js";

const ENDED = new Set(["completed", "error", "cancelled"]);
const STATUS = {
  waiting: "Waiting", downloading: "Downloading", downloads_done: "Downloaded", running: "Installing", paused: "Paused", completed: "Installed",
  error: "Failed", cancelled: "Canceled",
};

let installed = [];
let starters = [];
let jobs = new Map(); // installations by id

export function prepare() {
  $("models-open").addEventListener("click", () => {
    dialogs.open("models");
    attempt(reload);
  });
  $("install-form").addEventListener("submit", (event) => { event.preventDefault(); attempt(install); });
  $("installs-prune").addEventListener("click", () => attempt(async () => { await api.pruneInstalls(); await loadJobs(); }));
  $("models-search").addEventListener("input", show);
  for (const tab of document.querySelectorAll("[data-list]")) tab.addEventListener("click", () => choose(tab.dataset.list));
}

function choose(list) {
  for (const tab of document.querySelectorAll("[data-list]")) tab.setAttribute("aria-pressed", String(tab.dataset.list === list));
  show();
}

const isStarters = () => isAdmin() && document.querySelector('[data-list="starters"]').getAttribute("aria-pressed") === "true";

async function reload() {
  for (const part of document.querySelectorAll("[data-admin]")) part.hidden = !isAdmin();
  const lists = await Promise.all([api.allModels(), isAdmin() ? api.starterModels() : { starter_models: [] }, isAdmin() && loadJobs()]);
  installed = lists[0];
  starters = lists[1].starter_models.sort((one, other) => (other.type === "main") - (one.type === "main"));
  show();
}

// Installed and starter models

function show() {
  const words = $("models-search").value.trim().toLowerCase();
  const models = (isStarters() ? starters : installed).filter((model) => [model.name, model.base, model.type, model.description].join(" ").toLowerCase().includes(words));
  $("models-empty").hidden = models.length > 0;
  $("models-empty").textContent = words ? "No model matches this text." : "No model is installed.";
  render($("models-list"), ...models.map(isStarters() ? starterRow : modelRow));
}

const details = (model) => [model.base, model.type, model.variant !== "normal" && model.variant, model.format, model.file_size && formatSize(model.file_size)].filter(Boolean).join(" · ");

function modelRow(model) {
  const remove = isAdmin() && iconButton("trash", `Delete ${model.name}`, () => removeModel(model));
  return element("li", {}, element("div", {}, element("span", {}, model.name), element("small", {}, details(model))), remove || null);
}

async function removeModel(model) {
  const text = `“${model.name}” is deleted, with its files if they are in the models folder.`;
  if (!await dialogs.ask({ title: "Delete the model", text, submit: "Delete", danger: true })) return;
  await attempt(async () => {
    await api.deleteModel(model.key);
    await Promise.all([reload(), loadModels(), loadExtras()]);
  });
}

function starterRow(model) {
  const needed = model.dependencies ?? [];
  const text = [model.description, needed.length && `Also installs ${needed.map(({ name }) => name).join(", ")}.`].filter(Boolean).join(" ");
  const action = model.is_installed
    ? element("span", { className: "hint" }, "Installed")
    : button("Install", () => attempt(() => installStarter(model)), { "aria-label": `Install ${model.name}`, "data-focus": model.source });
  return element("li", {}, element("div", {}, element("span", {}, model.name), element("small", {}, details(model)), element("small", {}, text)), action);
}

async function installStarter(model) {
  for (const { name, description, source } of [...model.dependencies ?? [], model]) await api.install(source, { name, description });
  await loadJobs();
  toast(`${model.name} is being installed.`, "note");
}

// Installations

async function install() {
  await api.install($("install-source").value.trim(), {}, $("install-token").value.trim());
  $("install-source").value = $("install-token").value = "";
  await loadJobs();
}

async function loadJobs() {
  jobs = new Map((await api.installs()).map((job) => [job.id, job]));
  showJobs();
}

const sourceOf = ({ source }) => source.path ?? source.url ?? [source.repo_id, source.variant, source.subfolder].filter(Boolean).join(":");

function showJobs() {
  const listed = [...jobs.values()].reverse();
  $("installs").hidden = !listed.length;
  $("installs-prune").hidden = !listed.some(({ status }) => ENDED.has(status));
  render($("installs-list"), ...listed.map(jobRow));
}

function jobRow(job) {
  const name = job.config_out?.name ?? job.config_in?.name ?? sourceOf(job);
  const sizes = job.total_bytes ? `${formatSize(job.bytes)} of ${formatSize(job.total_bytes)}` : "";
  const actions = [];
  const add = (label, action) => actions.push(button(label, () => attempt(async () => { await action(); await loadJobs(); }), { "aria-label": `${label}: ${name}`, "data-focus": `${label}-${job.id}` }));
  if (job.status === "waiting" || job.status === "downloading") add("Pause", () => api.changeInstall(job.id, "pause"));
  if (job.status === "paused") add("Resume", () => api.changeInstall(job.id, "resume"));
  if (job.status === "error") add("Try again", () => api.changeInstall(job.id, "restart_failed"));
  if (!ENDED.has(job.status)) add("Cancel", () => api.cancelInstall(job.id));
  const bar = ENDED.has(job.status) ? null : element("progress", { max: 1, "aria-label": `Progress of ${name}` });
  if (bar && job.total_bytes) bar.value = job.bytes / job.total_bytes;
  const text = [STATUS[job.status] ?? job.status, job.status !== "error" && job.status !== "cancelled" && sizes].filter(Boolean).join(" · ");
  return element("li", { "data-status": job.status },
    element("div", {}, element("span", {}, name), element("small", {}, text), bar, job.error ? element("small", { className: "account-error" }, job.error) : null), ...actions);
}

const refresh = debounce(() => { if ($("models").open) attempt(isAdmin() ? loadJobs : reload); }, 200);

/** Handle an event of an installation. */
export function onEvent(name, data) {
  const job = jobs.get(data.id);
  if (name === "model_install_download_progress" && job) {
    Object.assign(job, { status: "downloading", bytes: data.bytes, total_bytes: data.total_bytes });
    if ($("models").open) showJobs();
  } else refresh();
  if (name === "model_install_complete") {
    loadModels();
    loadExtras();
    if ($("models").open) attempt(reload);
    else if (isAdmin()) toast(`${data.config?.name ?? "A model"} is installed.`, "note");
  }
  if (name === "model_install_error" && !$("models").open) toast(`An installation failed: ${data.error}`);
}
