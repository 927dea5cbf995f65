"""The text-to-image batch for Stable Diffusion 1, as InvokeAI's own page sends it.

It writes node names and fields; what the nodes do, and whether they exist, it does not know.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from invokeclone.queue.batches import Batch

EDGES = (
    ("sd1_model_loader.unet", "denoise_latents.unet"),
    ("sd1_model_loader.clip", "clip_skip.clip"),
    ("clip_skip.clip", "pos_cond.clip"),
    ("clip_skip.clip", "neg_cond.clip"),
    ("positive_prompt.value", "pos_cond.prompt"),
    ("pos_cond.conditioning", "pos_cond_collect.item"),
    ("pos_cond_collect.collection", "denoise_latents.positive_conditioning"),
    ("neg_cond.conditioning", "neg_cond_collect.item"),
    ("neg_cond_collect.collection", "denoise_latents.negative_conditioning"),
    ("seed.value", "noise.seed"),
    ("noise.noise", "denoise_latents.noise"),
    ("denoise_latents.latents", "canvas_output.latents"),
    ("sd1_model_loader.vae", "canvas_output.vae"),
    ("seed.value", "core_metadata.seed"),
    ("positive_prompt.value", "core_metadata.positive_prompt"),
    ("core_metadata.metadata", "canvas_output.metadata"),
)


def text_to_image(
    model: Mapping[str, Any],
    prompt: str,
    seeds: Sequence[int],
    *,
    negative_prompt: str = "",
    steps: int = 30,
    cfg_scale: float = 7.5,
    scheduler: str = "dpmpp_3m_k",
    width: int = 512,
    height: int = 512,
    clip_skip: int = 0,
    board_id: str | None = None,
    origin: str | None = "generate",
    destination: str | None = "gallery",
) -> Batch:
    """Return a batch that makes one picture per seed; width and height in pixels, multiples of 8.

    `model` holds at least key, hash, name, base and type of a model record. Raise pydantic's ValidationError for values
    that the nodes refuse.
    """
    settings = {"steps": steps, "cfg_scale": cfg_scale, "scheduler": scheduler, "cfg_rescale_multiplier": 0.0}
    size = {"width": width, "height": height}
    chosen = {field: model[field] for field in ("key", "hash", "name", "base", "type")}
    nodes = (
        _node("sd1_model_loader", "main_model_loader", model=chosen),
        _node("clip_skip", "clip_skip", skipped_layers=clip_skip),
        _node("positive_prompt", "string", value=prompt),
        _node("pos_cond", "compel"),
        _node("pos_cond_collect", "collect"),
        _node("neg_cond", "compel", prompt=negative_prompt),
        _node("neg_cond_collect", "collect"),
        _node("seed", "integer", value=seeds[0] if seeds else 0),
        _node("noise", "noise", use_cpu=True, **size),
        _node("denoise_latents", "denoise_latents", denoising_start=0.0, denoising_end=1.0, **settings),
        _node(
            "core_metadata",
            "core_metadata",
            generation_mode="txt2img",
            negative_prompt=negative_prompt,
            model=chosen,
            rand_device="cpu",
            clip_skip=clip_skip,
            seamless_x=False,
            seamless_y=False,
            **size,
            **settings,
        ),
        _node("canvas_output", "l2i", fp32=True, board={"board_id": board_id} if board_id else None)
        | {"is_intermediate": False, "use_cache": False},
    )
    graph = {
        "id": "sd1_txt2img",
        "nodes": {node["id"]: node for node in nodes},
        "edges": [{"source": _end(source), "destination": _end(target)} for source, target in EDGES],
    }
    data = [
        [{"node_path": "seed", "field_name": "value", "items": list(seeds)}],
        [{"node_path": "positive_prompt", "field_name": "value", "items": [prompt]}],
    ]
    return Batch.model_validate({"graph": graph, "data": data, "origin": origin, "destination": destination})


def _node(node_id: str, node_type: str, **inputs: Any) -> dict[str, Any]:
    return {"id": node_id, "type": node_type, "is_intermediate": True, "use_cache": True, **inputs}


def _end(place: str) -> dict[str, str]:
    node_id, _, field = place.partition(".")
    return {"node_id": node_id, "field": field}
