// The panel that shows the run in progress: message, percentage and preview.

import { $ } from "./dom.js";

export const isShown = () => !$("progress").hidden;
export const isWaiting = () => $("progress").hasAttribute("data-waiting");

export function show(message, percentage, image) {
  $("progress").hidden = false;
  $("progress").removeAttribute("data-waiting");
  $("progress-message").textContent = message;
  if (percentage === null || percentage === undefined) $("progress-bar").removeAttribute("value");
  else $("progress-bar").value = percentage;
  if (image) {
    $("preview").src = image.dataURL;
    $("preview").hidden = false;
  }
}

/** Show the report of a running node. */
export function report({ message, percentage, image, invocation }) {
  const percent = percentage === null ? "" : ` ${Math.round(percentage * 100)} %`;
  show(`${message}${percent}`, percentage, image);
  const { steps, scheduler } = invocation ?? {};
  $("progress-detail").textContent = [steps && `${steps} steps`, scheduler].filter(Boolean).join(", ");
}

/** Show a state that the next report of the queue replaces. */
export function showWaiting(message) {
  show(message, null);
  $("progress").setAttribute("data-waiting", "");
}

export function hide() {
  $("progress").hidden = true;
  clearPreview();
}

export function clearPreview() {
  $("preview").hidden = true;
  $("preview").removeAttribute("src");
  $("progress-detail").textContent = "";
}
