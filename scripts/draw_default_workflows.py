"""Generate the default workflows: python scripts/draw_default_workflows.py.

Nodes take their version and inputs from the registry, so run this again when a node they use has changed.
"""

import json
from pathlib import Path
from typing import Any

from invokeclone.graph.invocations import registry
from invokeclone.models.install.embedded_model import EMBEDDED_KEY

FOLDER = Path(__file__).parent.parent / "invokeclone" / "workflows" / "defaults"
COLUMN, ROW = 440, 380
SIDE = 128
MODEL = {
    "key": EMBEDDED_KEY,
    "hash": "any",
    "name": "Embedded Tiny",
    "base": "sd-1",
    "type": "main",
    "submodel_type": None,
}
ADVICE = "The sizes suit the embedded model. For Stable Diffusion 1.5 choose 512 by 512."


class Sheet:
    """A workflow under construction."""

    def __init__(self) -> None:
        self.nodes: list[dict[str, Any]] = []
        self.edges: list[dict[str, Any]] = []
        self.fields: list[dict[str, Any]] = []

    def node(
        self, node_id: str, at: tuple[float, float], label: str = "", *, keep: bool = False, **values: Any
    ) -> None:
        """Add a node at a column and row. Its type is its id up to the first dash; `keep` saves its output."""
        node_type = node_id.partition("-")[0]
        cls = registry.get(node_type)
        inputs = {}
        for name, field in cls.model_fields.items():
            extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
            if extra.get("field_kind") not in {"input", "internal"} or extra.get("ui_hidden"):
                continue
            inputs[name] = {"name": name, "label": "", "description": ""}
            value = values.get(name, extra.get("orig_default") if extra.get("input") != "connection" else None)
            if value is not None:
                inputs[name]["value"] = value
        if "board" in inputs:
            inputs["board"]["value"] = "auto"
        data = {
            "id": node_id, "type": node_type, "version": cls.ui_config.version, "nodePack": "invokeai", "label": label,
            "notes": "", "isOpen": True, "isIntermediate": not keep, "useCache": node_type != "rand_int",
            "inputs": inputs,
        }  # fmt: skip
        position = {"x": at[0] * COLUMN, "y": at[1] * ROW}
        self.nodes.append({"id": node_id, "type": "invocation", "position": position, "data": data})

    def wire(self, *ways: str) -> None:
        """Add edges, each `node:output > node:input`."""
        for way in ways:
            (source, start), (target, end) = (end_name.split(":") for end_name in way.split(" > "))
            self.edges.append(
                {
                    "id": f"{source}:{start}-{target}:{end}", "type": "default", "source": source, "sourceHandle": start,
                    "target": target, "targetHandle": end,
                }
            )  # fmt: skip

    def ask(self, input_path: str, label: str, kind: str | None = None, component: str | None = None) -> None:
        """Add an input, `node:input`, to the form with a label."""
        node_id, name = input_path.split(":")
        (node,) = [candidate for candidate in self.nodes if candidate["id"] == node_id]
        node["data"]["inputs"][name]["label"] = label
        data: dict[str, Any] = {"fieldIdentifier": {"nodeId": node_id, "fieldName": name}, "showDescription": False}
        if kind is not None:
            data["settings"] = {"type": f"{kind}-field-config", "component": component or "number-input"}
            if kind != "string":
                data["settings"]["showShuffle"] = False
        self.fields.append({"id": f"node-field-{node_id}-{name}", "type": "node-field", "data": data})

    def save(self, file: str, name: str, tags: str, description: str) -> None:
        """Write the workflow with its form: a heading, the description, the inputs."""
        heading: list[dict[str, Any]] = [
            {"id": "heading-title", "type": "heading", "data": {"content": name}},
            {"id": "text-description", "type": "text", "data": {"content": f"{description} {ADVICE}"}},
            {"id": "divider-title", "type": "divider"},
        ]
        elements = [{**element, "parentId": "root"} for element in [*heading, *self.fields]]
        layout = {"layout": "column", "children": [element["id"] for element in elements]}
        root: dict[str, Any] = {"id": "root", "type": "container", "data": layout}
        workflow = {
            "id": f"default_{file}", "name": name, "author": "invokeclone", "description": description,
            "version": "1.0.0", "contact": "", "tags": tags, "notes": "", "exposedFields": [],
            "meta": {"version": "3.0.0", "category": "default"}, "nodes": self.nodes, "edges": self.edges,
            "form": {"elements": {element["id"]: element for element in [root, *elements]}, "rootElementId": "root"},
        }  # fmt: skip
        text = json.dumps(workflow, indent=1, ensure_ascii=False)
        (FOLDER / f"{file}.json").write_text(f"{text}\n", encoding="utf-8")


def begin(*, positive: str | None) -> Sheet:
    """Add the common nodes: model, prompts, denoising, decoding."""
    sheet = Sheet()
    sheet.node("main_model_loader", (0, 0.5), "Model", model=MODEL)
    prompt: dict[str, Any] = {} if positive is None else {"prompt": positive}
    sheet.node("compel-positive", (1, 0), "Positive Prompt", **prompt)
    sheet.node("compel-negative", (1, 1), "Negative Prompt", prompt="")
    sheet.node("denoise_latents", (3, 0.5), steps=20, cfg_scale=4.0, scheduler="euler")
    sheet.node("l2i", (4, 0.5), "Image", keep=True)
    sheet.wire(
        "main_model_loader:clip > compel-positive:clip",
        "main_model_loader:clip > compel-negative:clip",
        "main_model_loader:unet > denoise_latents:unet",
        "main_model_loader:vae > l2i:vae",
        "compel-positive:conditioning > denoise_latents:positive_conditioning",
        "compel-negative:conditioning > denoise_latents:negative_conditioning",
        "noise:noise > denoise_latents:noise",
        "denoise_latents:latents > l2i:latents",
    )
    sheet.ask("main_model_loader:model", "Model")
    if positive is not None:
        sheet.ask("compel-positive:prompt", "Positive Prompt", "string", "textarea")
    return sheet


def finish(sheet: Sheet) -> None:
    """Add the common inputs at the end of the form."""
    sheet.ask("compel-negative:prompt", "Negative Prompt", "string", "textarea")
    sheet.ask("denoise_latents:steps", "Steps", "integer")
    sheet.ask("denoise_latents:cfg_scale", "CFG Scale")
    sheet.ask("denoise_latents:scheduler", "Scheduler")


def add_size_inputs(sheet: Sheet, node_id: str) -> None:
    """Add width and height of a node to the form."""
    sheet.ask(f"{node_id}:width", "Width", "integer")
    sheet.ask(f"{node_id}:height", "Height", "integer")


def text_to_image() -> None:
    """Write the workflow that generates an image from a prompt."""
    sheet = begin(positive="a red circle on a blue background")
    sheet.node("rand_int", (1, 2), "Random Seed")
    sheet.node("noise", (2, 1.5), width=SIDE, height=SIDE)
    sheet.wire("rand_int:value > noise:seed")
    finish(sheet)
    add_size_inputs(sheet, "noise")
    sheet.save(
        "text_to_image_sd1",
        "Text to Image - SD1.5",
        "sd1.5, text to image",
        "Generates an image from a prompt with a Stable Diffusion 1 model.",
    )


def image_to_image() -> None:
    """Write the workflow that regenerates an image from a prompt."""
    sheet = begin(positive="a red circle on a blue background")
    sheet.node("img_resize", (1, 2), "Initial Image", width=SIDE, height=SIDE)
    sheet.node("i2l", (2, 2))
    sheet.node("rand_int", (1, 3), "Random Seed")
    sheet.node("noise", (3, 2))
    (denoise,) = [node for node in sheet.nodes if node["id"] == "denoise_latents"]
    denoise["data"]["inputs"]["denoising_start"]["value"] = 0.4
    sheet.wire(
        "main_model_loader:vae > i2l:vae",
        "img_resize:image > i2l:image",
        "i2l:width > noise:width",
        "i2l:height > noise:height",
        "rand_int:value > noise:seed",
        "i2l:latents > denoise_latents:latents",
    )
    sheet.ask("img_resize:image", "Initial Image")
    add_size_inputs(sheet, "img_resize")
    sheet.ask("denoise_latents:denoising_start", "Denoising Start", "float", "number-input-and-slider")
    finish(sheet)
    sheet.save(
        "image_to_image_sd1",
        "Image to Image - SD1.5",
        "sd1.5, image to image",
        "Generates an image from an initial image and a prompt. A higher denoising start keeps more of the initial image.",
    )


def seed_sweep() -> None:
    """Write the workflow with one prompt and several seeds."""
    sheet = begin(positive="a red circle on a blue background")
    sheet.node("range_of_size", (0, 2), "Seeds", start=1, size=4, step=1)
    sheet.node("iterate", (1, 2), "Each Seed")
    sheet.node("noise", (2, 1.5), width=SIDE, height=SIDE)
    sheet.node("collect", (5, 0.5), "All Images")
    sheet.node("image_collection", (6, 0.5), "Images")
    sheet.wire(
        "range_of_size:collection > iterate:collection",
        "iterate:item > noise:seed",
        "l2i:image > collect:item",
        "collect:collection > image_collection:collection",
    )
    sheet.ask("range_of_size:start", "First Seed", "integer")
    sheet.ask("range_of_size:size", "Number of Seeds", "integer")
    finish(sheet)
    add_size_inputs(sheet, "noise")
    sheet.save(
        "seed_sweep_sd1",
        "Seed Sweep - SD1.5",
        "sd1.5, text to image, iterate",
        "Generates an image from the same prompt for each of several seeds, and collects the images.",
    )


def prompt_list() -> None:
    """Write the workflow with several prompts and one seed."""
    sheet = begin(positive=None)
    prompts = [
        "a red circle on a blue background",
        "a house at night",
        "a yellow star on a white background",
        "a boat on the sea",
    ]
    sheet.node("string_batch", (0, -0.5), "Prompts", strings=prompts)
    sheet.node("noise", (2, 1.5), seed=1, width=SIDE, height=SIDE)
    sheet.wire("string_batch:value > compel-positive:prompt")
    sheet.ask("string_batch:strings", "Prompts")
    sheet.ask("noise:seed", "Seed", "integer")
    finish(sheet)
    add_size_inputs(sheet, "noise")
    sheet.save(
        "prompt_list_sd1",
        "Prompt List - SD1.5",
        "sd1.5, text to image, batch",
        "Generates an image for each prompt of a list with the same seed; each is a separate queue item.",
    )


def main() -> None:
    """Write all workflows."""
    registry.discover()
    FOLDER.mkdir(exist_ok=True)
    for draw in (text_to_image, image_to_image, seed_sweep, prompt_list):
        draw()


if __name__ == "__main__":
    main()
