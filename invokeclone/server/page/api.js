// Client for the part of the server's REST API that this page uses.

const root = new URL("../", import.meta.url);

/** Return the URL of `path` on this server, including its base path. */
export const address = (path) => new URL(path, root).href;

/** Send a request; return its JSON. Throws an Error with a message for the user. */
export async function call(method, path, body) {
  const form = body instanceof FormData;
  let response;
  try {
    response = await fetch(address(path), {
      method,
      headers: body && !form ? { "Content-Type": "application/json" } : {},
      body: form ? body : body && JSON.stringify(body),
    });
  } catch {
    throw new Error("The server is not reachable.");
  }
  const content = await response.json().catch(() => null);
  if (!response.ok) throw new Error(explain(content?.detail) || `The server responded with status ${response.status}.`);
  return content;
}

/** Turn an error's `detail` (a string, or a list of validation errors) into one line. */
function explain(detail) {
  if (typeof detail === "string") return detail;
  if (!Array.isArray(detail)) return "";
  return detail.map((item) => `${(item.loc ?? []).slice(-2).join(" ")}: ${item.msg}`).join("; ");
}

export const models = async () => (await call("GET", "api/v2/models/?model_type=main")).models;
export const enqueue = (request) => call("POST", "api/v1/queue/default/enqueue_prompt", request);
export const queueStatus = async () => (await call("GET", "api/v1/queue/default/status")).queue;
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
