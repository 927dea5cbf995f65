// Client for the part of the server's REST API that this page uses.

const root = new URL("../../", import.meta.url); // the page's modules are at page/VERSION/app.js

/** Return the URL of `path` on this server, including its base path. */
export const address = (path) => new URL(path, root).href;

// The token of the signed-in user, where InvokeAI's web UI keeps it too: a sign-in is valid in both.
const TOKEN = "auth_token";
let token = null;
try { token = localStorage.getItem(TOKEN); } catch { /* private mode */ }
let unauthorized = () => {};

export const currentToken = () => token;

/** Keep the token of a sign-in, or forget it (null). */
export function keepToken(value) {
  token = value;
  try { value ? localStorage.setItem(TOKEN, value) : localStorage.removeItem(TOKEN); } catch { /* private mode */ }
}

/** Set the function that is called when the server requires a new sign-in. */
export function onUnauthorized(callback) { unauthorized = callback; }

/** An error response or a failed connection, with a message for the user; `status` is 0 for the latter. */
export class Failure extends Error {
  constructor(message, status) { super(message); this.status = status; }
}

/** Send a request; return its JSON. Throws a Failure. */
export async function call(method, path, body) {
  const form = body instanceof FormData;
  const sent = token;
  const headers = body && !form ? { "Content-Type": "application/json" } : {};
  if (sent) headers.Authorization = `Bearer ${sent}`;
  let response;
  try {
    response = await fetch(address(path), { method, headers, body: form ? body : body && JSON.stringify(body) });
  } catch {
    throw new Failure("The server is not reachable.", 0);
  }
  const content = await response.json().catch(() => null);
  const renewed = response.headers.get("X-Refreshed-Token");
  if (renewed && sent === token) keepToken(renewed);
  if (response.ok) return content;
  if (response.status === 401 && path !== LOGIN && sent === token) unauthorized();
  throw new Failure(explain(content?.detail) || `The server responded with status ${response.status}.`, response.status);
}

/** Turn an error's `detail` (a string, or a list of validation errors) into one line. */
function explain(detail) {
  if (typeof detail === "string") return detail;
  if (!Array.isArray(detail)) return "";
  return detail.map((item) => `${(item.loc ?? []).slice(-2).join(" ")}: ${item.msg}`).join("; ");
}

const LOGIN = "api/v1/auth/login";
export const accounts = () => call("GET", "api/v1/auth/status");
export const logIn = (credentials) => call("POST", LOGIN, credentials);
export const setUp = (account) => call("POST", "api/v1/auth/setup", account);
export const logOut = () => call("POST", "api/v1/auth/logout");
export const me = () => call("GET", "api/v1/auth/me");
/** Renew the cookie with which the browser fetches image files. */
export const renewCookie = () => call("POST", "api/v1/auth/media-cookie");

const rows = (path) => async () => call("GET", path);
const query = (values) => new URLSearchParams(Object.entries(values).filter(([, value]) => value !== undefined && value !== null && value !== ""));

// Models
const MODELS = "api/v2/models/";
export const models = async (type) => (await call("GET", `${MODELS}?model_type=${type}`)).models.filter((model) => model.type === type);
export const allModels = async () => (await call("GET", MODELS)).models;
/** Return the models that can generate images, each with its capabilities. */
export const generationModels = async () => (await call("GET", `${MODELS}capabilities`)).models;
export const deleteModel = (key) => call("DELETE", `${MODELS}i/${encodeURIComponent(key)}`);
export const starterModels = rows(`${MODELS}starter_models`);
export const installs = rows(`${MODELS}install`);
export const install = (source, config = {}, token = "") =>
  call("POST", `${MODELS}install?${query({ source, access_token: token })}`, config);
export const cancelInstall = (id) => call("DELETE", `${MODELS}install/${encodeURIComponent(id)}`);
/** Do `action` (pause, resume, restart_failed) with an installation. */
export const changeInstall = (id, action) => call("POST", `${MODELS}install/${encodeURIComponent(id)}/${action}`);
export const pruneInstalls = () => call("DELETE", `${MODELS}install`);

// The queue
const QUEUE = "api/v1/queue/default/";
export const enqueue = (request) => call("POST", `${QUEUE}enqueue_prompt`, request);
/** Return the queue's status (`queue`) and whether it is paused (`processor`). */
export const queueStatus = rows(`${QUEUE}status`);
export const item = (id) => call("GET", `${QUEUE}i/${encodeURIComponent(id)}`);
export const itemIds = async () => (await call("GET", `${QUEUE}item_ids`)).item_ids;
export const pendingIds = async () => (await call("GET", `${QUEUE}pending_item_ids`)).item_ids;
export const itemSummaries = (ids) => call("POST", `${QUEUE}item_summaries_by_ids`, { item_ids: ids });
export const retryItems = (ids) => call("PUT", `${QUEUE}retry_items_by_id`, ids);
export const cancelItem = (id) => call("PUT", `${QUEUE}i/${encodeURIComponent(id)}/cancel`);
export const prependItem = (id) => call("PUT", `${QUEUE}i/${encodeURIComponent(id)}/prepend`);
/** Move a waiting item "before" or "after" another one. */
export const moveItem = (id, side, target) => call("PUT", `${QUEUE}move_items_by_id`, { item_ids: [id], [side]: target });
export const cancelWaiting = () => call("PUT", `${QUEUE}cancel_all_except_current`);
/** Do `action` (pause, resume) with the workers. */
export const changeProcessor = (action) => call("PUT", `${QUEUE}processor/${action}`);

// Images
const IMAGES = "api/v1/images/";
export const image = (name) => call("GET", `${IMAGES}i/${encodeURIComponent(name)}`);
export const metadata = (name) => call("GET", `${IMAGES}i/${encodeURIComponent(name)}/metadata`);
export const removeImage = (name) => call("DELETE", `${IMAGES}i/${encodeURIComponent(name)}`);
export const star = (name, on) => call("POST", `${IMAGES}${on ? "star" : "unstar"}`, { image_names: [name] });

/** Return a page of images, newest first; `filter` has the route's parameters. */
export const images = (offset, limit, filter) =>
  call("GET", `${IMAGES}?${query({ is_intermediate: false, order_dir: "DESC", offset, limit, ...filter })}`);

/** Upload an image of a category; return its record. */
export function upload(file, category = "user", isIntermediate = false) {
  const form = new FormData();
  form.append("file", file, file.name || "image.png");
  return call("POST", `${IMAGES}upload?image_category=${category}&is_intermediate=${isIntermediate}`, form);
}

// Boards
const BOARDS = "api/v1/boards/";
export const boards = rows(`${BOARDS}?all=true&order_by=board_name&direction=ASC`);
export const addBoard = (name) => call("POST", `${BOARDS}?${query({ board_name: name })}`);
export const renameBoard = (id, name) => call("PATCH", `${BOARDS}${encodeURIComponent(id)}`, { board_name: name });
export const deleteBoard = (id) => call("DELETE", `${BOARDS}${encodeURIComponent(id)}`);
/** Move an image to a board, or off its board ("none"). */
export const moveImage = (name, board) => (board === "none"
  ? call("DELETE", "api/v1/board_images/", { image_name: name })
  : call("POST", "api/v1/board_images/", { board_id: board, image_name: name }));

// Style presets
const PRESETS = "api/v1/style_presets/";
export const presets = rows(PRESETS);
export const deletePreset = (id) => call("DELETE", `${PRESETS}i/${encodeURIComponent(id)}`);
/** Create a style preset, or replace the one with an id. */
export function savePreset(values, id = null) {
  const form = new FormData();
  form.append("data", JSON.stringify({ type: "user", ...values }));
  return call(id ? "PATCH" : "POST", id ? `${PRESETS}i/${encodeURIComponent(id)}` : PRESETS, form);
}
