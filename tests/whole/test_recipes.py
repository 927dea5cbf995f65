"""What recipes make of requests, on a real server with tiny models: the same pixels as the graphs that they stand for."""

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.parity import models
from tests.server_process import Server
from tests.shims.comfyui import Comfy

PROMPT, NEGATIVE = "a red fox in the snow", "blurry"
SIDE = 64
COMMON = {"prompt": PROMPT, "negative_prompt": NEGATIVE, "seed": 11, "width": SIDE, "height": SIDE}
RUN = {"steps": 5, "cfg_scale": 5.0, "scheduler": "euler"}
PHOTO = Path(models.__file__).parent / "input" / "photo.png"


@dataclass
class Library:
    """A server with models, and images on it."""

    server: Server
    photo: str
    region: str

    def identifier(self, name: str) -> dict[str, str]:
        listed = self.server.client.get("/api/v2/models/").json()["models"]
        (model,) = [model for model in listed if model["name"] == name]
        return {field: model[field] for field in ("key", "hash", "name", "base", "type")}

    def run_prompt(self, **request: Any) -> dict[str, Any]:
        """Run a request of `enqueue_prompt`; returns the finished item."""
        answer = self.server.client.post("/api/v1/queue/default/enqueue_prompt", json=COMMON | RUN | request)
        assert answer.status_code == 200, answer.text
        return self.wait_until_completed(answer.json()["item_ids"][0])

    def run_graph(self, nodes: dict[str, dict[str, Any]], edges: list[str]) -> dict[str, Any]:
        """Run a graph; an edge is written `node.field > node.field`. Returns the finished item."""
        graph_nodes = {
            name: {"id": name, "is_intermediate": name != "canvas_output", **node} for name, node in nodes.items()
        }
        ends = [[dict(zip(("node_id", "field"), end.split("."), strict=True)) for end in e.split(" > ")] for e in edges]
        listed = [{"source": source, "destination": destination} for source, destination in ends]
        graph = {"id": "hand", "nodes": graph_nodes, "edges": listed}
        (item_id,) = self.server.enqueue({"batch": {"graph": graph, "runs": 1}})
        return self.wait_until_completed(item_id)

    def wait_until_completed(self, item_id: int) -> dict[str, Any]:
        item = self.server.finished(item_id)
        assert item["status"] == "completed", item["error_message"]
        return item

    def automatic(self, **request: Any) -> bytes:
        """Return the pixels of `txt2img`."""
        body = COMMON | {"steps": 5, "cfg_scale": 5.0, "sampler_name": "Euler"} | request
        answer = self.server.client.post("/sdapi/v1/txt2img", json=body)
        assert answer.status_code == 200, answer.text
        return pixels(base64.b64decode(answer.json()["images"][0]))

    def comfy(self, workflow: dict[str, tuple[str, dict[str, Any]]]) -> bytes:
        """Return the pixels of the node 9."""
        comfy = Comfy(self.server.client)
        entry = comfy.run({node: {"class_type": kind, "inputs": inputs} for node, (kind, inputs) in workflow.items()})
        assert entry["status"]["status_str"] == "success", entry["status"]["messages"][-1]
        return pixels(comfy.pictures(entry)[0])


def pixels(data: bytes) -> bytes:
    with Image.open(io.BytesIO(data)) as image:
        return image.convert("RGB").tobytes()


def to_png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def region() -> Image.Image:
    """Return a mask whose left half is white."""
    image = Image.new("L", (SIDE, SIDE))
    image.paste(255, (0, 0, SIDE // 2, SIDE))
    return image


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    folder = tmp_path_factory.mktemp("models")
    models._stable_diffusion(folder / "p-sd15", 768)
    models.stable_diffusion_xl(folder / "p-sdxl", 2048)
    models.stable_diffusion_xl(folder / "p-refiner", 1280, refiner=True)
    models._image_prompts(folder)
    _controlnet(folder)
    server = Server(tmp_path_factory.mktemp("server") / "root").start()
    paths = sorted(folder.iterdir())
    for path in paths:
        query = {"source": str(path), "inplace": True}
        server.client.post("/api/v2/models/install", params=query, json={"name": path.name}).raise_for_status()
    names = {path.name for path in paths}

    def are_models_installed() -> bool:
        return names <= {model["name"] for model in server.client.get("/api/v2/models/").json()["models"]}

    server.wait_for(are_models_installed, "the models")

    def upload(data: bytes) -> str:
        query = {"image_category": "user", "is_intermediate": True}
        files = {"file": ("a.png", data, "image/png")}
        return str(server.client.post("/api/v1/images/upload", params=query, files=files).json()["image_name"])

    yield Library(server, upload(PHOTO.read_bytes()), upload(to_png(region())))
    server.client.close()
    server.stop()


def _controlnet(folder: Path) -> None:
    from diffusers.models.controlnets.controlnet import ControlNetModel
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    from tests.parity.weights import fill

    unet = UNet2DConditionModel.from_pretrained(folder / "p-sd15" / "unet")
    fill(ControlNetModel.from_unet(unet), salt="p-controlnet-sd15").save_pretrained(folder / "p-controlnet-sd15")


# The refiner


def run_with_refiner(
    library: Library, start: float, *more_edges: str, base: Any = None, **nodes: Any
) -> dict[str, Any]:
    """Run the official UI's graph of SDXL with its refiner."""
    common = {"steps": 5, "cfg_scale": 5.0, "scheduler": "euler"}
    refiner = {"steps": 7, "cfg_scale": 3.0, "scheduler": "ddim", "denoising_start": start}
    return library.run_graph(
        {
            "model": {"type": "sdxl_model_loader", "model": library.identifier("p-sdxl")},
            "pos": {"type": "sdxl_compel_prompt", "prompt": PROMPT, "style": PROMPT},
            "neg": {"type": "sdxl_compel_prompt", "prompt": NEGATIVE, "style": NEGATIVE},
            "noise": {"type": "noise", "seed": 11, "width": SIDE, "height": SIDE},
            "base": {"type": "denoise_latents", "denoising_end": start, **common, **(base or {})},
            "refiner": {"type": "sdxl_refiner_model_loader", "model": library.identifier("p-refiner")},
            "rpos": {"type": "sdxl_refiner_compel_prompt", "style": PROMPT, "aesthetic_score": 6.0},
            "rneg": {"type": "sdxl_refiner_compel_prompt", "style": NEGATIVE, "aesthetic_score": 2.5},
            "refine": {"type": "denoise_latents", **refiner},
            "canvas_output": {"type": "l2i", "fp32": True},
            **nodes,
        },
        [
            *(f"model.{clip} > {side}.{clip}" for side in ("pos", "neg") for clip in ("clip", "clip2")),
            *(f"{side}.conditioning > base.{field}" for side, field in SIDES),
            "model.unet > base.unet",
            "noise.noise > base.noise",
            *(f"refiner.clip2 > r{side}.clip2" for side in ("pos", "neg")),
            *(f"r{side}.conditioning > refine.{field}" for side, field in SIDES),
            "refiner.unet > refine.unet",
            "base.latents > refine.latents",
            "refine.latents > canvas_output.latents",
            "model.vae > canvas_output.vae",
            *more_edges,
        ],
    )


SIDES = (("pos", "positive_conditioning"), ("neg", "negative_conditioning"))
REFINER = {"model": "p-refiner", "start": 0.6, "steps": 7, "cfg_scale": 3.0, "scheduler": "ddim"}


def test_refiner_finishes_the_run(library: Library) -> None:
    item = library.run_prompt(model="p-sdxl", refiner=REFINER)
    result = library.server.output_pixels(item)
    assert result == library.server.output_pixels(run_with_refiner(library, 0.6))
    assert result != library.server.output_pixels(library.run_prompt(model="p-sdxl"))
    recorded = library.server.output_metadata(item)
    assert {name: value for name, value in recorded.items() if name.startswith("refiner_")} == {
        "refiner_model": library.identifier("p-refiner"),
        "refiner_steps": 7,
        "refiner_cfg_scale": 3.0,
        "refiner_scheduler": "ddim",
        "refiner_positive_aesthetic_score": 6.0,
        "refiner_negative_aesthetic_score": 2.5,
        "refiner_start": 0.6,
    }
    assert (recorded["steps"], recorded["model"]["name"]) == (5, "p-sdxl")


def test_refiner_refines_only_the_inpainted_part(library: Library) -> None:
    init_image = {"image": library.photo, "strength": 0.7, "resize": True}
    mask = {"mask": library.region, "paste": False}
    item = library.run_prompt(model="p-sdxl", refiner=REFINER, init_image=init_image, inpaint_mask=mask)
    photo = {"image": {"image_name": library.photo}, "width": SIDE, "height": SIDE}
    by_hand = run_with_refiner(
        library,
        0.6,
        "resize.image > i2l.image",
        "model.vae > i2l.vae",
        "i2l.latents > base.latents",
        "resize.image > mask.image",
        "resize_mask.image > mask.mask",
        "model.vae > mask.vae",
        "mask.denoise_mask > base.denoise_mask",
        "mask.denoise_mask > refine.denoise_mask",
        base={"denoising_start": 0.3},
        resize={"type": "img_resize", "resample_mode": "lanczos", **photo},
        i2l={"type": "i2l", "fp32": True},
        resize_mask={
            "type": "img_resize",
            "resample_mode": "bilinear",
            **photo,
            "image": {"image_name": library.region},
        },
        mask={"type": "create_denoise_mask", "fp32": True},
    )
    assert library.server.output_pixels(item) == library.server.output_pixels(by_hand)


def test_refiner_runs_alone_when_fewer_steps_remain_than_its_share(library: Library) -> None:
    init_image = {"image": library.photo, "strength": 0.3, "resize": True}
    item = library.run_prompt(model="p-sdxl", refiner=REFINER, init_image=init_image)
    photo = {"image": {"image_name": library.photo}, "width": SIDE, "height": SIDE}
    by_hand = run_with_refiner(
        library,
        0.7,
        "resize.image > i2l.image",
        "model.vae > i2l.vae",
        "i2l.latents > base.latents",
        base={"denoising_start": 0.7},
        resize={"type": "img_resize", "resample_mode": "lanczos", **photo},
        i2l={"type": "i2l", "fp32": True},
    )
    assert library.server.output_pixels(item) == library.server.output_pixels(by_hand)


def test_hires_fix_refines_both_runs(library: Library) -> None:
    fix = {"width": 96, "height": 96, "steps": 4, "strength": 0.6}
    item = library.run_prompt(model="p-sdxl", refiner={"model": "p-refiner", "start": 0.6}, hires_fix=fix)
    nodes = item["session"]["graph"]["nodes"]
    ranges = {
        name: (node["steps"], node["denoising_start"], node["denoising_end"])
        for name, node in nodes.items()
        if node["type"] == "denoise_latents"
    }
    assert ranges == {
        "denoise_latents": (5, 0.0, 0.6),
        "refiner_denoise_latents": (5, 0.6, 1.0),
        "second_denoise": (4, 0.4, 0.6),
        "refiner_second_denoise": (4, 0.6, 1.0),
    }
    assert library.server.output_image(item)["width"] == 96


def test_the_refiner_in_the_compatibility_apis(library: Library) -> None:
    expected = library.server.output_pixels(
        library.run_prompt(model="p-sdxl", refiner={"model": "p-refiner", "start": 0.6})
    )
    settings = {"sd_model_checkpoint": "p-sdxl"}
    switched = {"refiner_checkpoint": "p-refiner", "refiner_switch_at": 0.6}
    assert library.automatic(override_settings=settings, **switched) == expected
    sampler = {"steps": 5, "cfg": 5.0, "sampler_name": "euler", "scheduler": "normal", "noise_seed": 11}
    prompts = {
        f"{model}{index}": ("CLIPTextEncode", {"clip": [model, 1], "text": text})
        for model in ("4", "14")
        for index, text in enumerate((PROMPT, NEGATIVE))
    }
    first = {"model": ["4", 0], "positive": ["40", 0], "negative": ["41", 0], "latent_image": ["5", 0]}
    last = {"model": ["14", 0], "positive": ["140", 0], "negative": ["141", 0], "latent_image": ["10", 0]}
    workflow = {
        "4": ("CheckpointLoaderSimple", {"ckpt_name": "p-sdxl"}),
        "14": ("CheckpointLoaderSimple", {"ckpt_name": "p-refiner"}),
        "5": ("EmptyLatentImage", {"width": SIDE, "height": SIDE, "batch_size": 1}),
        **prompts,
        "10": (
            "KSamplerAdvanced",
            sampler | first | {"add_noise": "enable", "start_at_step": 0, "end_at_step": 3}
            | {"return_with_leftover_noise": "enable"},
        ),
        "11": (
            "KSamplerAdvanced",
            sampler | last | {"add_noise": "disable", "start_at_step": 3, "end_at_step": 10000}
            | {"return_with_leftover_noise": "disable"},
        ),
        "8": ("VAEDecode", {"samples": ["11", 0], "vae": ["4", 2]}),
        "9": ("SaveImage", {"images": ["8", 0], "filename_prefix": "x"}),
    }  # fmt: skip
    assert library.comfy(workflow) == expected
    size = {"width": 1024, "height": 1024}
    target = {"target_width": 1024, "target_height": 1024, "crop_w": 0, "crop_h": 0}
    for index, text in enumerate((PROMPT, NEGATIVE)):
        sized = {"clip": ["4", 1], "text_g": text, "text_l": text, **size, **target}
        scored = {"clip": ["14", 1], "text": text, "ascore": (6.0, 2.5)[index], **size}
        workflow[f"4{index}"] = ("CLIPTextEncodeSDXL", sized)
        workflow[f"14{index}"] = ("CLIPTextEncodeSDXLRefiner", scored)
    assert library.comfy(workflow) == expected
    workflow["141"][1]["ascore"] = 9.0
    assert library.comfy(workflow) != expected


# Reference images


def run_with_ip_adapter(library: Library, *more_edges: str, **nodes: Any) -> dict[str, Any]:
    """Run a graph of Stable Diffusion 1 with an IP-Adapter for the left half."""
    return library.run_graph(
        {
            "model": {"type": "main_model_loader", "model": library.identifier("p-sd15")},
            "pos": {"type": "compel", "prompt": PROMPT},
            "neg": {"type": "compel", "prompt": NEGATIVE},
            "noise": {"type": "noise", "seed": 11, "width": SIDE, "height": SIDE},
            "denoise": {"type": "denoise_latents", "steps": 5, "cfg_scale": 5.0, "scheduler": "euler"},
            "canvas_output": {"type": "l2i", "fp32": True},
            **nodes,
        },
        [
            *(f"model.clip > {side}.clip" for side in ("pos", "neg")),
            *(f"{side}.conditioning > denoise.{field}" for side, field in SIDES),
            "model.unet > denoise.unet",
            "noise.noise > denoise.noise",
            "denoise.latents > canvas_output.latents",
            "model.vae > canvas_output.vae",
            *more_edges,
        ],
    )


def test_reference_images_are_prompts_in_all_apis(library: Library) -> None:
    choice = {
        "image": library.photo,
        "model": "p-ip-sd15.safetensors",
        "weight": 0.7,
        "end": 0.8,
        "mask": library.region,
    }
    item = library.run_prompt(model="p-sd15", reference_images=[choice])
    expected = library.server.output_pixels(item)
    node = {
        "type": "ip_adapter",
        "ip_adapter_model": library.identifier("p-ip-sd15.safetensors"),
        "image": {"image_name": library.photo},
        "weight": 0.7,
        "end_step_percent": 0.8,
    }
    masked = {"type": "image_mask_to_tensor", "image": {"image_name": library.region}}
    by_hand = run_with_ip_adapter(
        library, "mask.mask > ip.mask", "ip.ip_adapter > denoise.ip_adapter", ip=node, mask=masked
    )
    assert expected == library.server.output_pixels(by_hand)
    assert expected != library.server.output_pixels(library.run_prompt(model="p-sd15"))
    unit = {
        "module": "ip-adapter-auto",
        "model": "p-ip-sd15 [0123abcd]",
        "image": base64.b64encode(PHOTO.read_bytes()).decode(),
        "effective_region_mask": base64.b64encode(to_png(region())).decode(),
        "weight": 0.7,
        "guidance_end": 0.8,
    }
    units = {"alwayson_scripts": {"ControlNet": {"args": [unit]}}}
    settings = {"sd_model_checkpoint": "p-sd15"}
    assert library.automatic(override_settings=settings, **units) == expected
    ip_adapter = {
        "model": ["4", 0], "ipadapter": ["20", 0], "image": ["21", 0], "weight": 0.7, "weight_type": "linear",
        "combine_embeds": "concat", "start_at": 0.0, "end_at": 0.8, "embeds_scaling": "V only",
        "attn_mask": ["22", 0], "clip_vision": ["23", 0],
    }  # fmt: skip
    sampler = {"steps": 5, "cfg": 5.0, "sampler_name": "euler", "scheduler": "normal", "seed": 11, "denoise": 1.0}
    sides = {"positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0]}
    workflow = {
        "4": ("CheckpointLoaderSimple", {"ckpt_name": "p-sd15"}),
        "5": ("EmptyLatentImage", {"width": SIDE, "height": SIDE, "batch_size": 1}),
        "6": ("CLIPTextEncode", {"clip": ["4", 1], "text": PROMPT}),
        "7": ("CLIPTextEncode", {"clip": ["4", 1], "text": NEGATIVE}),
        "20": ("IPAdapterModelLoader", {"ipadapter_file": "p-ip-sd15.safetensors"}),
        "21": ("LoadImage", {"image": library.photo}),
        "22": ("LoadImageMask", {"image": library.region, "channel": "red"}),
        "23": ("CLIPVisionLoader", {"clip_name": "IP Adapter SD1.5 Image Encoder"}),
        "24": ("IPAdapterAdvanced", ip_adapter),
        "3": ("KSampler", sampler | sides | {"model": ["24", 0]}),
        "8": ("VAEDecode", {"samples": ["3", 0], "vae": ["4", 2]}),
        "9": ("SaveImage", {"images": ["8", 0], "filename_prefix": "x"}),
    }
    assert library.comfy(workflow) == expected


def test_recorded_metadata_reproduces_the_image(library: Library) -> None:
    choice = {"image": library.photo, "model": "p-ip-sd15.safetensors", "weight": 0.7, "end": 0.8, "method": "full"}
    item = library.run_prompt(model="p-sd15", reference_images=[choice])
    name = library.server.output_image(item)["image_name"]
    recorded = library.server.output_metadata(item)["ipAdapters"]
    assert recorded == [
        {
            "image": {"image_name": library.photo},
            "ip_adapter_model": library.identifier("p-ip-sd15.safetensors"),
            "clip_vision_model": "ViT-H",
            "method": "full",
            "weight": 0.7,
            "begin_step_percent": 0.0,
            "end_step_percent": 0.8,
        }
    ]
    again = run_with_ip_adapter(
        library,
        "record.metadata > adapters.metadata",
        "adapters.ip_adapter_list > denoise.ip_adapter",
        record={"type": "metadata_from_image", "image": {"image_name": name}},
        adapters={"type": "metadata_to_ip_adapters"},
    )
    assert library.server.output_pixels(again) == library.server.output_pixels(item)


def test_preprocessors_run_as_nodes_before_the_controlnet(library: Library) -> None:
    photo = Image.open(PHOTO).convert("RGB").resize((SIDE, SIDE))
    unit = {
        "module": "canny",
        "model": "p-controlnet-sd15",
        "image": base64.b64encode(to_png(photo)).decode(),
        "processor_res": SIDE,
        "threshold_a": 20,
        "threshold_b": 60,
        "resize_mode": "Just Resize",
    }
    settings = {"sd_model_checkpoint": "p-sd15"}

    def generate(**fields: Any) -> bytes:
        units = {"alwayson_scripts": {"ControlNet": {"args": [unit | fields]}}}
        return library.automatic(override_settings=settings, **units)

    query = {"image_category": "user", "is_intermediate": True}
    files = {"file": ("a.png", to_png(photo), "image/png")}
    image = library.server.client.post("/api/v1/images/upload", params=query, files=files).json()["image_name"]
    edges = {"type": "canny_edge_detection", "image": {"image_name": image}, "low_threshold": 20, "high_threshold": 60}
    net = {"type": "controlnet", "control_model": library.identifier("p-controlnet-sd15")}
    by_hand = run_with_ip_adapter(
        library, "edges.image > net.image", "net.control > denoise.control", edges=edges, net=net
    )
    expected = library.server.output_pixels(by_hand)
    assert generate() == expected
    assert generate(module="none") != expected


def test_impossible_requests_are_refused_and_enqueue_nothing(library: Library) -> None:
    def check_refusal(status: int, text: str, **request: Any) -> None:
        answer = library.server.client.post("/api/v1/queue/default/enqueue_prompt", json=COMMON | RUN | request)
        assert answer.status_code == status, answer.text
        assert text in answer.json()["detail"]

    before = library.server.client.get("/api/v1/queue/default/status").json()["queue"]["total"]
    xl: dict[str, Any] = {"model": "p-sdxl"}
    sd1: dict[str, Any] = {"model": "p-sd15"}
    control = {"model": "p-controlnet-sd15", "image": "nothing.png"}
    check_refusal(400, "sd-1 models do not support refiners", **sd1, refiner={"model": "p-refiner"})
    check_refusal(404, "there is no refiner 'nothing'", **xl, refiner={"model": "nothing"})
    check_refusal(400, "p-sdxl is sdxl: p-sdxl requires a refiner of sdxl-refiner", **xl, refiner={"model": "p-sdxl"})
    check_refusal(424, "no IP-Adapter for sdxl models is installed", **xl, reference_images=[{"image": library.photo}])
    check_refusal(
        424,
        "install h94/IP-Adapter::sdxl_models/image_encoder",
        **sd1,
        reference_images=[{"image": library.photo, "image_encoder": "ViT-G"}],
    )
    check_refusal(400, "for sd-1 models", **xl, reference_images=[{"image": library.photo, "model": "p-ip-sd15"}])
    check_refusal(404, "nothing.png", **sd1, controls=[control])
    check_refusal(404, "nothing.png", **sd1, reference_images=[{"image": "nothing.png"}])
    check_refusal(404, "nothing.png", **sd1, reference_images=[{"image": library.photo, "mask": "nothing.png"}])
    check_refusal(404, "nothing.png", **sd1, init_image={"image": "nothing.png"})
    check_refusal(404, "nothing.png", **sd1, init_image={"image": library.photo}, inpaint_mask={"mask": "nothing.png"})
    check_refusal(404, "there is no VAE 'nothing'", **sd1, vae="nothing")
    after = library.server.client.get("/api/v1/queue/default/status").json()["queue"]["total"]
    assert after == before
