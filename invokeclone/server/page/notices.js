// Messages over the page: short notices that disappear, and those that stay until they are dismissed.

const CROSS = '<svg viewBox="0 0 24 24" aria-hidden="true"><path d="M6 6l12 12M18 6 6 18"/></svg>';
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
  const item = document.createElement("div");
  item.className = "toast";
  item.dataset.kind = kind;
  const words = document.createElement("span");
  words.textContent = text;
  const remove = () => {
    item.remove();
    if (!box.children.length) box.hidePopover?.();
  };
  if (stays) item.dataset.stays = "";
  item.append(words);
  if (action) item.append(button(action.label, () => { remove(); action.run(); }));
  if (stays) {
    const cross = button("", remove);
    cross.className = "icon quiet";
    cross.setAttribute("aria-label", "Dismiss");
    cross.innerHTML = CROSS;
    item.append(cross);
  } else setTimeout(remove, kind === "error" || action ? 9_000 : 4_000);
  box.append(item);
  // Hide and show again, to move the popover above a dialog that was opened later.
  box.hidePopover?.();
  box.showPopover?.();
}

function button(label, run) {
  const made = document.createElement("button");
  made.type = "button";
  made.textContent = label;
  made.addEventListener("click", run);
  return made;
}
