// Elements of the page. All text of users and models goes in as text nodes, never as markup.

export const $ = (id) => document.getElementById(id);

/**
 * Create an element. `attributes` are properties if the element has them (`className`, `hidden` …), else attributes; functions
 * named `onclick` … are listeners. `children` are elements and texts; empty ones are left out.
 */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(key.slice(2), value);
    else if (key in made) made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}

/** Create a button of type `button`. */
export const button = (text, onclick, attributes = {}) => element("button", { type: "button", onclick, ...attributes }, text);

const PATHS = {
  cross: "M6 6l12 12M18 6 6 18",
  star: "m12 4 2.5 5.2 5.7.8-4.1 4 1 5.7L12 17l-5.1 2.7 1-5.7-4.1-4 5.7-.8Z",
  trash: "M5 7h14M10 7V4h4v3m-7 0 1 13h8l1-13",
  up: "m6 14 6-6 6 6M12 8v12M6 4h12",
  again: "M5 12a7 7 0 0 1 12-5l2 2m0-5v5h-5M19 12a7 7 0 0 1-12 5l-2-2m0 5v-5h5",
};

/** Create an icon. */
export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}

/** Create a button that shows only an icon. */
export function iconButton(name, label, onclick, attributes = {}) {
  const made = button("", onclick, { className: "icon quiet", title: label, "aria-label": label, ...attributes });
  made.append(icon(name));
  return made;
}

/** Replace the children of an element, and keep the focus on the child with the same `data-focus`. */
export function render(parent, ...children) {
  const focused = parent.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
  parent.replaceChildren(...children.filter(Boolean));
  if (focused) parent.querySelector(`[data-focus="${CSS.escape(focused)}"]`)?.focus();
}

/** Return a number of bytes as text with three digits at most. */
export function formatSize(bytes) {
  const units = ["B", "KB", "MB", "GB", "TB"];
  let unit = 0;
  for (; bytes >= 1000 && unit < units.length - 1; unit += 1) bytes /= 1000;
  return `${bytes < 10 && unit ? bytes.toFixed(1) : Math.round(bytes)} ${units[unit]}`;
}

/** Return a function that calls `action` once, `delay` milliseconds after the last of its calls. */
export function debounce(action, delay) {
  let timer;
  return () => { clearTimeout(timer); timer = setTimeout(action, delay); };
}
