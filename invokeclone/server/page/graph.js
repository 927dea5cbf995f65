// The graph of a picture: InvokeAI's Stable Diffusion 1 text-to-image graph, and the same started from a picture.

const MAX_SEED = 2 ** 32;

const identifier = ({ key, hash, name, base, type }) => ({ key, hash, name, base, type });
const edge = (from, output, to, input) => ({
  source: { node_id: from, field: output },
  destination: { node_id: to, field: input },
});

/** Return `count` seeds: `seed` and the ones after it, or after a random one when `seed` is null. */
export function seeds(seed, count) {
  const first = seed ?? Math.floor(Math.random() * MAX_SEED);
  return Array.from({ length: count }, (_, index) => (first + index) % MAX_SEED);
}

/** Return the batch for the settings `want`: one item per seed. */
export function batch(want) {
  return {
    graph: graph(want),
    runs: 1,
    data: [
      [{ node_path: "seed", field_name: "value", items: seeds(want.seed, want.count) }],
      [{ node_path: "positive_prompt", field_name: "value", items: [want.prompt] }],
    ],
    origin: "generate",
    destination: "gallery",
  };
}

function graph(want) {
  const nodes = {};
  const add = (id, type, fields = {}) => {
    nodes[id] = { id, type, is_intermediate: true, use_cache: true, ...fields };
  };
  const { width, height } = want;
  const model = identifier(want.model);

  add("sd1_model_loader", "main_model_loader", { model });
  add("clip_skip", "clip_skip", { skipped_layers: 0 });
  add("positive_prompt", "string", { value: want.prompt });
  add("pos_cond", "compel");
  add("pos_cond_collect", "collect");
  add("neg_cond", "compel", { prompt: want.negative });
  add("neg_cond_collect", "collect");
  add("seed", "integer", { value: 0 });
  add("noise", "noise", { width, height, use_cpu: true, seed: 0 });
  add("denoise_latents", "denoise_latents", {
    cfg_scale: want.cfg, cfg_rescale_multiplier: 0, scheduler: want.scheduler, steps: want.steps,
    denoising_start: want.start ? 1 - want.strength : 0, denoising_end: 1,
  });
  add("core_metadata", "core_metadata", {
    generation_mode: want.start ? "img2img" : "txt2img", width, height, cfg_scale: want.cfg, cfg_rescale_multiplier: 0,
    negative_prompt: want.negative, model, steps: want.steps, scheduler: want.scheduler, rand_device: "cpu", clip_skip: 0,
    seamless_x: false, seamless_y: false, ...(want.start && { strength: want.strength, init_image: want.start.image_name }),
  });
  add("canvas_output", "l2i", { is_intermediate: false, use_cache: false, fp32: true });

  const edges = [
    edge("sd1_model_loader", "unet", "denoise_latents", "unet"),
    edge("sd1_model_loader", "clip", "clip_skip", "clip"),
    edge("clip_skip", "clip", "pos_cond", "clip"),
    edge("clip_skip", "clip", "neg_cond", "clip"),
    edge("positive_prompt", "value", "pos_cond", "prompt"),
    edge("pos_cond", "conditioning", "pos_cond_collect", "item"),
    edge("pos_cond_collect", "collection", "denoise_latents", "positive_conditioning"),
    edge("neg_cond", "conditioning", "neg_cond_collect", "item"),
    edge("neg_cond_collect", "collection", "denoise_latents", "negative_conditioning"),
    edge("seed", "value", "noise", "seed"),
    edge("noise", "noise", "denoise_latents", "noise"),
    edge("denoise_latents", "latents", "canvas_output", "latents"),
    edge("sd1_model_loader", "vae", "canvas_output", "vae"),
    edge("seed", "value", "core_metadata", "seed"),
    edge("positive_prompt", "value", "core_metadata", "positive_prompt"),
    edge("core_metadata", "metadata", "canvas_output", "metadata"),
  ];
  if (want.start) startFrom(want, add, edges);
  return { id: want.start ? "sd1_img2img" : "sd1_txt2img", nodes, edges };
}

/** Put the encoded start picture, resized where needed, under the noise. */
function startFrom(want, add, edges) {
  const image = { image_name: want.start.image_name };
  const fits = want.start.width === want.width && want.start.height === want.height;
  add("i2l", "i2l", { fp32: true, ...(fits && { image }) });
  if (!fits) {
    add("resize", "img_resize", { image, width: want.width, height: want.height, resample_mode: "lanczos" });
    edges.push(edge("resize", "image", "i2l", "image"));
  }
  edges.push(edge("sd1_model_loader", "vae", "i2l", "vae"), edge("i2l", "latents", "denoise_latents", "latents"));
}
