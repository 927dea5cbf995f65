// Runs from an image of the gallery: variations of it, and larger versions.

import * as form from "./form.js";
import * as loras from "./loras.js";
import { state } from "./state.js";

const UPSCALE = 2;
const UPSCALE_STRENGTH = 0.35;

/** Return the model that made an image, or the chosen one if it is not installed. */
const modelOf = (metadata) => state.models.find((model) => model.key === metadata?.model?.key) ?? state.model;

/** Whether runs can start from an image with this metadata. */
export const isPossible = (metadata) => Boolean(modelOf(metadata)?.features.image_to_image);

/** Return a request for a variation of an image; `strength` 0 to 1 is how much changes. */
export const vary = (image, metadata, strength) => request(image, metadata, strength, 1);

/** Return a request for the image at twice its size, or as large as the model's limits permit. */
export const upscale = (image, metadata) => request(image, metadata, UPSCALE_STRENGTH, UPSCALE);

/** Return a request that starts from an image, with the settings that made it; those of the form if it has none. */
function request(image, metadata, strength, factor) {
  const model = modelOf(metadata);
  const own = metadata?.positive_prompt === undefined ? formSettings() : metadata;
  const [width, height] = form.fit(image.width * factor, image.height * factor, model);
  const installed = new Set(state.extras.filter(({ type, base }) => type === "lora" && base === model.base).map(({ key }) => key));
  const guided = model.guidance !== "none";
  return {
    prompt: own.positive_prompt ?? "", model: model.key, width, height, count: 1, seed: null,
    negative_prompt: model.guidance === "cfg" ? own.negative_prompt ?? "" : "",
    steps: own.steps ?? model.defaults.steps,
    cfg_scale: guided ? own.cfg_scale ?? own.guidance ?? model.defaults.cfg_scale : null,
    scheduler: model.schedulers.includes(own.scheduler) ? own.scheduler : null,
    loras: model.features.lora ? loras.fromMetadata(own).filter(({ key }) => installed.has(key)).map(({ key, weight }) => ({ model: key, weight })) : [],
    init_image: { image: image.image_name, strength, resize: true },
    board_id: image.board_id ?? null,
  };
}

/** Return the form's settings as an image's metadata. */
function formSettings() {
  const { prompt, negative_prompt, steps, cfg_scale, scheduler } = form.toRequest();
  return { positive_prompt: prompt, negative_prompt, steps, cfg_scale, scheduler };
}
