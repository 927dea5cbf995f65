// Client for the part of the server's REST API that this page uses.

const root = new URL("../", import.meta.url);

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

export const models = async () => (await call("GET", "api/v2/models/?model_type=main")).models;
export const capabilities = (key) => call("GET", `api/v2/models/i/${key}/capabilities`);
export const enqueue = (request) => call("POST", "api/v1/queue/default/enqueue_prompt", request);
/** Return the queue's status (`queue`) and whether it is paused (`processor`). */
export const queueStatus = () => call("GET", "api/v1/queue/default/status");
export const item = (id) => call("GET", `api/v1/queue/default/i/${id}`);
export const itemSummaries = (ids) => call("POST", "api/v1/queue/default/item_summaries_by_ids", { item_ids: ids });
export const retryItems = (ids) => call("PUT", "api/v1/queue/default/retry_items_by_id", ids);
export const cancelItem = (id) => call("PUT", `api/v1/queue/default/i/${id}/cancel`);
export const cancelWaiting = () => call("PUT", "api/v1/queue/default/cancel_all_except_current");
export const image = (name) => call("GET", `api/v1/images/i/${name}`);
export const metadata = (name) => call("GET", `api/v1/images/i/${name}/metadata`);
export const removeImage = (name) => call("DELETE", `api/v1/images/i/${name}`);
export const star = (name, on) => call("POST", `api/v1/images/${on ? "star" : "unstar"}`, { image_names: [name] });

/** Return a page of generated images: newest first, optionally starred ones before all others. */
export const images = (offset, limit, starredFirst = false) =>
  call("GET", `api/v1/images/?categories=general&is_intermediate=false&starred_first=${starredFirst}&order_dir=DESC&offset=${offset}&limit=${limit}`);

/** Upload a user's image; return its record. */
export function upload(file) {
  const form = new FormData();
  form.append("file", file, file.name || "image.png");
  return call("POST", "api/v1/images/upload?image_category=user&is_intermediate=false", form);
}
