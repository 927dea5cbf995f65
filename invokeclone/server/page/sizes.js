// Aspect presets: sizes with the area that the model was trained with.

import { $, button } from "./dom.js";
import { on, state } from "./state.js";
import { sync } from "./form.js";

const RATIOS = [[1, 1], [4, 3], [3, 2], [16, 9], [3, 4], [2, 3], [9, 16]];
const TOLERANCE = 0.04; // sides are rounded to the model's grid

/** Return width and height of a ratio, with the area of the model's default size. */
function sizeOf([across, down]) {
  const { defaults, limits } = state.model;
  const unit = Math.sqrt((defaults.width * defaults.height) / (across * down));
  const side = (length) => Math.max(limits.side.minimum, Math.round((length * unit) / limits.side_multiple) * limits.side_multiple);
  return [side(across), side(down)];
}

export function prepare() {
  $("aspects").append(...RATIOS.map((ratio) => {
    const made = button(ratio.join(":"), () => {
      [$("width").value, $("height").value] = sizeOf(ratio);
      sync();
    }, { "aria-pressed": "false" });
    made.ratio = ratio;
    return made;
  }));
  on(["model"], show);
  $("form").addEventListener("synced", show);
}

function show() {
  const shown = Number($("width").value) / Number($("height").value);
  for (const preset of $("aspects").children) {
    const [across, down] = preset.ratio;
    preset.disabled = !state.model;
    preset.setAttribute("aria-pressed", String(Math.abs(shown * down / across - 1) < TOLERANCE));
    preset.title = state.model ? sizeOf(preset.ratio).join(" × ") : "";
  }
}
