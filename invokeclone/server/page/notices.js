// Messages over the page: short notices that disappear, and those that stay until they are dismissed.

import { button, element, iconButton } from "./dom.js";

const box = document.getElementById("toasts");

/** Remove the messages that stay: what the user does next makes them obsolete. */
export function dismissAll() {
  for (const item of box.querySelectorAll("[data-stays]")) item.remove();
}

/**
 * Show a message. `kind`: "error" or "note". With `stays`, it stays until dismissed.
 * `action`: { label, run }, a button that also removes the message.
 */
export function toast(text, kind = "error", { stays = false, action = null } = {}) {
  const item = element("div", { className: "toast" }, element("span", {}, text));
  item.dataset.kind = kind;
  const remove = () => {
    item.remove();
    if (!box.children.length) box.hidePopover?.();
  };
  if (stays) item.dataset.stays = "";
  if (action) item.append(button(action.label, () => { remove(); action.run(); }));
  if (stays) {
    item.append(iconButton("cross", "Dismiss", remove));
  } else setTimeout(remove, kind === "error" || action ? 9_000 : 4_000);
  box.append(item);
  // Hide and show again, to move the popover above a dialog that was opened later.
  box.hidePopover?.();
  box.showPopover?.();
}

/** Do something; a failure is shown, unless it is that of a sign-in, for which the form appears. */
export async function attempt(action) {
  try { await action(); } catch (error) { if (error.status !== 401) toast(error.message); }
}
