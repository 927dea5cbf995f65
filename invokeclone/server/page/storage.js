// What the browser keeps between visits; without storage (private mode) nothing is kept.

/** Return a stored value, or `fallback` if there is none. */
export function load(key, fallback) {
  try { return JSON.parse(localStorage.getItem(key)) ?? fallback; } catch { return fallback; }
}

export function save(key, value) {
  try { localStorage.setItem(key, JSON.stringify(value)); } catch { /* private mode */ }
}
