// The user's unfinished runs, so that none disappears without a word: their items are asked for after a lost connection and a reload.

import * as api from "./api.js";
import { toast } from "./notices.js";

const KEY = "invokeclone-runs";
const LIMIT = 200;
const TERMINAL = new Set(["completed", "failed", "canceled"]);

let ids = new Set();
try { ids = new Set(JSON.parse(sessionStorage.getItem(KEY) ?? "[]")); } catch { /* private mode */ }
const stopped = new Set(); // being canceled by this page: no loss
let canceling = 0; // number of cancellations in progress

function keep() {
  try { sessionStorage.setItem(KEY, JSON.stringify([...ids])); } catch { /* private mode */ }
}

export const isTerminal = (status) => TERMINAL.has(status);
export const unfinished = () => ids.size;

/** Follow items, at most the newest 200. */
export function follow(added) {
  for (const id of added) ids.add(id);
  ids = new Set([...ids].slice(-LIMIT));
  keep();
}

/** Stop following an item that has ended. */
export function end(id) {
  if (ids.delete(id)) keep();
}

/** Cancel items with `action`: one of them, or any; what it cancels is no loss, also after a reload. */
export async function cancel(action, id) {
  for (const one of id === undefined ? ids : [id]) stopped.add(one);
  canceling += 1;
  try {
    await action();
    await review();
  } finally {
    canceling -= 1;
    if (!canceling) stopped.clear();
  }
}

export function forget() {
  ids.clear();
  keep();
}

/** Ask the server how the followed items ended while no event could arrive, and report those that gave no image. */
export async function review() {
  if (!ids.size) return;
  const asked = [...ids];
  const items = new Map((await api.itemSummaries(asked)).map((item) => [item.item_id, item.status]));
  const lost = [];
  const failed = [];
  for (const id of asked) {
    if (!ids.has(id)) continue; // an event was faster
    const status = items.get(id);
    if (status !== undefined && !TERMINAL.has(status)) continue;
    if (status === "failed") failed.push(id);
    else if (status === "canceled" && !stopped.has(id)) lost.push(id);
    end(id);
  }
  if (failed.length) reportFailure((await api.item(failed[0]).catch(() => null))?.error_message, failed);
  if (lost.length) {
    const runs = lost.length === 1 ? "1 run was" : `${lost.length} runs were`;
    report(`${runs} canceled before the image was finished: the server stopped or restarted in the meantime.`, lost);
  }
}

export function reportFailure(message, failed) {
  report(message ? `Failed: ${message}` : "Generation failed.", failed);
}

function report(text, items) {
  toast(text, "error", {
    stays: true,
    action: { label: "Run again", run: () => api.retryItems(items).catch((error) => toast(error.message)) },
  });
}
