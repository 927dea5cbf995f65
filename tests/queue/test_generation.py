"""From what somebody says of a picture to a batch: what is chosen, what is refused, and that every graph is one that runs."""

import json
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from invokeclone.families.stable_diffusion.prompt_language import escape
from invokeclone.graph import recipes
from invokeclone.graph.invocations import registry
from invokeclone.graph.prompts import Prompt, PromptSegment
from invokeclone.graph.recipes import HiresFix, InitImage, InpaintMask
from invokeclone.graph.vocabulary.architectures import Capabilities
from invokeclone.graph.vocabulary.taxonomy import BaseModelType
from invokeclone.kit.sql.database import Database
from invokeclone.models.identify import registry as model_registry
from invokeclone.models.install.embedded_model import EMBEDDED_KEY
from invokeclone.models.records import store
from invokeclone.queue import generation
from invokeclone.queue.batches import expand
from invokeclone.queue.generation import GenerationRequest

COMMON = {
    "path": "unused",
    "hash": "blake3:0",
    "file_size": 1,
    "source": "unused",
    "source_type": "path",
    "type": "main",
    "format": "diffusers",
    "base": "sd-1",
    "prediction_type": "epsilon",
    "variant": "normal",
    "repo_variant": "",
}


@pytest.fixture(scope="module", autouse=True)
def nodes() -> None:
    registry.discover()


async def add(database: Database, key: str, **fields: Any) -> None:
    record = COMMON | {"key": key, "name": key, "path": key, "hash": f"blake3:{key}"} | fields
    config = model_registry.parse({field: value for field, value in record.items() if value is not None})
    async with database.write() as connection:
        await store.add(connection, config)


async def resolve_request(database: Database, **fields: Any) -> generation.ResolvedRequest:
    async with database.read() as connection:
        return await generation.resolve(connection, GenerationRequest(**{"prompt": "a cat"} | fields))


def expand_nodes(choice: generation.ResolvedRequest) -> list[dict[str, Any]]:
    return [json.loads(item.session)["graph"]["nodes"] for item in expand(choice.batch(origin="t"), 100)]


async def test_one_graph_is_built_for_each_seed(database: Database) -> None:
    await add(database, "m")
    choice = await resolve_request(database, seed=7, count=2, steps=4, width=128, height=64, scheduler="euler_a")
    graphs = expand_nodes(choice)
    assert [nodes["seed"]["value"] for nodes in graphs] == [7, 8]
    first = graphs[0]
    assert first["positive_prompt"]["value"] == "a cat"
    assert (first["denoise_latents_noise"]["width"], first["denoise_latents_noise"]["height"]) == (128, 64)
    assert (first["denoise_latents"]["steps"], first["denoise_latents"]["scheduler"]) == (4, "euler_a")
    assert first["sd1_model_loader"]["model"]["key"] == "m"
    assert not first["canvas_output"]["is_intermediate"]
    assert "board" not in first["canvas_output"]
    batch = choice.batch(origin="o")
    assert (batch.origin, batch.destination) == ("o", "gallery")


async def test_seeds_wrap_around_after_the_largest(database: Database) -> None:
    await add(database, "m")
    assert list((await resolve_request(database, seed=2**32 - 1, count=2)).seeds) == [2**32 - 1, 0]


async def test_unset_fields_come_from_model_settings_then_base_defaults(database: Database) -> None:
    settings = {"steps": 9, "cfg_scale": 3.0, "scheduler": "lcm", "width": 192, "cfg_rescale_multiplier": 0.5}
    await add(database, "m", default_settings=settings)
    resolved = (await resolve_request(database)).settings
    assert (resolved.steps, resolved.guidance, resolved.scheduler, resolved.cfg_rescale) == (9, 3.0, "lcm", 0.5)
    assert (resolved.width, resolved.height) == (192, 512)
    assert (await resolve_request(database, steps=2, cfg_scale=1)).settings.steps == 2


async def test_vae_of_the_model_settings_is_used_if_it_exists(database: Database) -> None:
    await add(database, "m", default_settings={"vae": "v"})
    assert (await resolve_request(database)).settings.vae is None
    await add(database, "v", type="vae", **dict.fromkeys(("prediction_type", "variant")))
    choice = await resolve_request(database)
    assert choice.settings.vae is not None
    assert choice.settings.vae["key"] == "v"
    assert expand_nodes(choice)[0]["vae_loader"]["vae_model"]["key"] == "v"


@pytest.mark.parametrize(
    ("asked", "size"),
    [((500, 300), (504, 304)), ((1, 1), (64, 64)), ((512, 515), (512, 512)), ((516, 516), (520, 520))],
)
async def test_sizes_are_rounded_to_the_grid(database: Database, asked, size) -> None:
    await add(database, "m")
    resolved = (await resolve_request(database, width=asked[0], height=asked[1])).settings
    assert (resolved.width, resolved.height) == size


@pytest.mark.parametrize("size", [(100_000, 1), (8192, 8192), (10**30, 64)])
async def test_sizes_over_the_limits_are_refused(database: Database, size) -> None:
    await add(database, "m")
    with pytest.raises(generation.InvalidGeneration, match="too large"):
        await resolve_request(database, width=size[0], height=size[1])


async def test_models_are_found_by_key_or_name_and_the_embedded_model_is_last(database: Database) -> None:
    await add(database, "zebra", name="Zebra Model")
    await add(database, EMBEDDED_KEY, name="A tiny one", hash="blake3:1", path="other")
    assert (await resolve_request(database)).config.key == "zebra"
    assert (await resolve_request(database, model="zebra model")).config.key == "zebra"
    assert (await resolve_request(database, model=EMBEDDED_KEY)).config.name == "A tiny one"
    with pytest.raises(generation.ModelNotFound, match="nobody"):
        await resolve_request(database, model="nobody")


async def test_generation_without_a_usable_model_is_refused(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(recipes.recipes(), BaseModelType.CogView4)
    with pytest.raises(generation.NoModelInstalled):
        await resolve_request(database)
    without_recipe = {"base": "cogview4", "prediction_type": None, "variant": None}
    await add(database, "other", **without_recipe)
    with pytest.raises(generation.NoModelInstalled):
        await resolve_request(database)
    with pytest.raises(generation.ModelCannotGenerate, match="other"):
        await resolve_request(database, model="other")


WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "init_image": {"init_image": InitImage("a.png", 0.6)},
    "start resized": {"init_image": InitImage("a.png", 0.6, resize=True)},
    "mask": {"init_image": InitImage("a.png"), "inpaint_mask": InpaintMask("m.png")},
    "mask with feather": {
        "init_image": InitImage("a.png", resize=True),
        "inpaint_mask": InpaintMask("m.png", feather=4, fill="noise"),
    },
    "enlarged latents": {"hires_fix": HiresFix(250, 256, 5)},
    "enlarged pixels": {"hires_fix": HiresFix(256, 256, 5, in_pixels=True, scheduler="ddim")},
    "variation": {"variation_seed": 5, "variation_strength": 0.3, "count": 2},
    "seamless": {"seamless": True},
    "all": {
        "init_image": InitImage("a.png"),
        "hires_fix": HiresFix(256, 256, 5),
        "variation_strength": 0.3,
        "seamless": True,
    },
}


@pytest.mark.parametrize("base", ["sd-1", "sdxl"])
@pytest.mark.parametrize("way", WAYS)
async def test_every_graph_is_valid_and_ends_in_its_output(database: Database, way: str, base: str) -> None:
    """A batch validates its graph: node types, fields, edges and their types."""
    await add(database, "m", base=base)
    nodes = expand_nodes(await resolve_request(database, **WAYS[way]))[0]
    assert nodes[recipes.OUTPUT]["type"] in ("l2i", "img_paste")
    assert sum(not node["is_intermediate"] for node in nodes.values()) == 1


async def test_strength_and_fill_determine_the_denoising_start(database: Database) -> None:
    await add(database, "m")

    async def start_of(**fields: Any) -> float:
        return expand_nodes(await resolve_request(database, **fields))[0]["denoise_latents"]["denoising_start"]

    assert await start_of(init_image=InitImage("a.png", 0.6)) == pytest.approx(0.4)
    assert await start_of(init_image=InitImage("a.png", 0.6), inpaint_mask=InpaintMask("m.png", fill="noise")) == 0.0


async def test_variations_share_the_seed_and_have_separate_variation_seeds(database: Database) -> None:
    await add(database, "m")
    graphs = expand_nodes(await resolve_request(database, seed=3, variation_seed=5, variation_strength=0.3, count=2))
    assert [(nodes["seed"]["value"], nodes["variation_seed"]["value"]) for nodes in graphs] == [(3, 5), (3, 6)]


async def test_mask_without_an_initial_image_is_refused(database: Database) -> None:
    await add(database, "m")
    with pytest.raises(generation.InvalidGeneration, match="mask"):
        (await resolve_request(database, inpaint_mask=InpaintMask("m.png"))).batch(origin="t")


def test_values_invalid_for_nodes_are_refused_by_the_request() -> None:
    for wrong in ({"scheduler": "nonsense"}, {"steps": 0}, {"init_image": {"image": "a", "strength": 2}}, {"size": 3}):
        with pytest.raises(ValidationError):
            GenerationRequest(prompt="a cat", **wrong)


PLAIN = [
    "a (big) cat",
    "C++ logo",
    'say "hi"-',
    '("a", "b").blend(1,2)',
    "hot.swap(cold)",
    "(x)+ y",
    "t-shirt - red",
    "a (b",
    "cat--, dog",
    "1-=2",
    "1--1 a++b",
]


@pytest.mark.parametrize("prompt", PLAIN)
def test_escaped_prompts_are_parsed_literally(prompt: str) -> None:
    """Told by compel itself: one fragment of weight 1 with every character, blanks aside."""
    from compel.prompt_parser import PromptParser

    read = PromptParser().parse_conjunction(escape(prompt))
    (part,) = read.prompts
    (fragment,) = part.children
    assert fragment.weight == 1.0
    assert fragment.text.replace(" ", "") == prompt.replace(" ", "")


async def test_native_prompts_are_unchanged(database: Database) -> None:
    await add(database, "m")
    nodes = expand_nodes(await resolve_request(database, prompt="(a cat)1.2 dog++"))[0]
    assert nodes["positive_prompt"]["value"] == "(a cat)1.2 dog++"


async def test_weighted_segments_are_written_in_the_models_prompt_language(database: Database) -> None:
    await add(database, "m")
    prompt = Prompt(((PromptSegment("a cat"), PromptSegment("red hat", 1.3)), (PromptSegment("snow (deep)"),)))
    nodes = expand_nodes(await resolve_request(database, prompt=prompt))[0]
    assert nodes["positive_prompt"]["value"] == r'("a cat (red hat)1.3", "snow \(deep\)").and()'
    as_json = {"chunks": [[{"text": "a cat"}, {"text": "hat", "weight": 0.5}]]}
    request = GenerationRequest.model_validate({"prompt": as_json})
    assert request.prompt == Prompt(((PromptSegment("a cat"), PromptSegment("hat", 0.5)),))


async def test_both_text_encoders_of_sdxl_get_the_prompt_and_skip_layers(database: Database) -> None:
    await add(database, "m", base="sdxl")
    batch = (await resolve_request(database, clip_skip=2)).batch(origin="t")
    graph = json.loads(next(iter(expand(batch, 100))).session)["graph"]
    edges = {tuple(f"{end['node_id']}.{end['field']}" for end in edge.values()) for edge in graph["edges"]}
    for name in ("clip", "clip2"):
        assert (f"sdxl_model_loader.{name}", f"{name}_skip.clip") in edges
        assert graph["nodes"][f"{name}_skip"]["skipped_layers"] == 2
        assert {(f"{name}_skip.clip", f"{side}_cond.{name}") for side in ("pos", "neg")} <= edges
    assert {("positive_prompt.value", f"pos_cond.{field}") for field in ("prompt", "style")} <= edges
    assert graph["nodes"]["core_metadata"]["generation_mode"] == "sdxl_txt2img"
    assert graph["nodes"]["denoise_latents_noise"]["width"] == 1024


LORA = {"type": "lora", "format": "lycoris", "prediction_type": None, "variant": None, "repo_variant": None}


async def graph_of(database: Database, **fields: Any) -> dict[str, Any]:
    return json.loads(next(iter(expand((await resolve_request(database, **fields)).batch(origin="t"), 100))).session)[
        "graph"
    ]


_TO_UNET = {("loras.unet", "denoise_latents.unet"), ("loras.clip", "pos_cond.clip")}
_TO_TRANSFORMER = {("loras.transformer", "denoise_latents.transformer"), ("loras.clip", "pos_cond.clip")}


@pytest.mark.parametrize(
    ("base", "kind", "expected_edges"),
    [
        ("sd-1", "lora_collection_loader", _TO_UNET),
        ("sdxl", "sdxl_lora_collection_loader", _TO_UNET | {("loras.clip2", "pos_cond.clip2")}),
        ("flux", "flux_lora_collection_loader", _TO_TRANSFORMER | {("loras.t5_encoder", "pos_cond.t5_encoder")}),
    ],
)
async def test_loras_are_applied_to_the_denoiser_and_the_text_encoders(
    database: Database, base: str, kind: str, expected_edges: set[tuple[str, str]]
) -> None:
    await add(database, "m", base=base, variant="dev" if base == "flux" else "normal")
    await add(database, "style", base=base, **LORA)
    await add(database, "face", base=base, path="folder/My Face.safetensors", **LORA)
    loras = [{"model": "STYLE", "weight": 0.5}, {"model": "my face"}]
    graph = await graph_of(database, loras=loras)
    node = graph["nodes"]["loras"]
    assert node["type"] == kind
    assert [(lora["lora"]["key"], lora["weight"]) for lora in node["loras"]] == [("style", 0.5), ("face", 1.0)]
    recorded = graph["nodes"]["core_metadata"]["loras"]
    assert [(lora["model"]["key"], lora["weight"]) for lora in recorded] == [("style", 0.5), ("face", 1.0)]
    edges = {tuple(f"{end['node_id']}.{end['field']}" for end in edge.values()) for edge in graph["edges"]}
    assert expected_edges <= edges
    graph = await graph_of(database, loras=[{"model": "style", "weight": 0.5, "text_weight": 0.0}])
    assert [graph["nodes"][name]["loras"][0]["weight"] for name in ("loras", "loras_text")] == [0.5, 0.0]


async def test_loras_that_cannot_be_applied_are_refused(database: Database) -> None:
    await add(database, "m")
    await add(database, "other", base="sdxl", **LORA)
    with pytest.raises(generation.ExtraModelNotFound, match="nothing"):
        await resolve_request(database, loras=[{"model": "nothing"}])
    with pytest.raises(generation.InvalidGeneration, match="the LoRA other is for sdxl models, m is sd-1"):
        await resolve_request(database, loras=[{"model": "other"}])
    await add(database, "style", **LORA)
    twice: list[dict[str, Any]] = [{"model": "style"}, {"model": "style", "weight": 0.5}]
    (lora,) = (await resolve_request(database, loras=twice)).settings.loras
    assert (lora.weight, lora.text_weight) == (1.5, None), "weights of a LoRA that occurs twice are added"
    twice[1] |= {"text_weight": 0.25}
    (lora,) = (await resolve_request(database, loras=twice)).settings.loras
    assert (lora.weight, lora.text_weight) == (1.5, 1.25)
    await add(database, "same", name="other", **LORA)
    lora = (await resolve_request(database, loras=[{"model": "other"}])).settings.loras[0]
    assert lora.model["key"] == "same", "of two with the name, the one that fits"
    with pytest.raises(ValidationError):
        await resolve_request(database, loras=[{"model": "style", "weight": float("nan")}])


def test_each_base_has_its_default_size() -> None:
    architectures = model_registry.architectures()
    assert architectures[BaseModelType.StableDiffusion1].defaults.width == 512
    assert architectures[BaseModelType.StableDiffusion2].defaults.width == 768


async def test_unsupported_features_are_refused_by_name(database: Database, monkeypatch) -> None:
    await add(database, "m")
    architecture = model_registry.architectures()[BaseModelType.StableDiffusion1]
    limited = replace(architecture, capabilities=Capabilities(schedulers=("euler", "heun")))
    monkeypatch.setattr(model_registry, "architectures", lambda: {BaseModelType.StableDiffusion1: limited})
    refused: dict[str, dict[str, Any]] = {
        "initial images": {"init_image": InitImage("a.png")},
        "second run": {"hires_fix": HiresFix(128, 128, 5)},
        "CLIP skip": {"clip_skip": 1},
        "seamless": {"seamless": True},
        "variations": {"variation_strength": 0.5},
    }
    for what, request in refused.items():
        with pytest.raises(generation.InvalidGeneration, match=f"sd-1 models do not support .*{what}"):
            await resolve_request(database, **request)
    assert (await resolve_request(database, scheduler="heun")).settings.scheduler == "heun"
    assert (await resolve_request(database, scheduler="unipc")).settings.scheduler == "euler"


async def test_generated_region_is_pasted_into_a_larger_image(database: Database) -> None:
    """The larger picture is the result, on the board and with the metadata; the part is a step on the way."""
    await add(database, "m")
    choice = await resolve_request(database, width=128, height=128, board_id="b", seed=1)
    paste_target = recipes.PasteTarget("whole.png", "mask.png", left=10, top=20, width=60, height=70)
    batch = replace(choice, settings=replace(choice.settings, paste_target=paste_target)).batch(origin="t")
    (nodes,) = [json.loads(item.session)["graph"]["nodes"] for item in expand(batch, 100)]
    output = nodes["canvas_output"]
    assert (output["type"], output["x"], output["y"], output["crop"]) == ("img_paste", 10, 20, True)
    assert output["base_image"]["image_name"] == "whole.png"
    assert output["mask"]["image_name"] == "mask.png"
    assert (output["is_intermediate"], output["board"]["board_id"]) == (False, "b")
    assert (nodes["part"]["type"], nodes["part"]["is_intermediate"], nodes["part"].get("board")) == ("l2i", True, None)
    assert (nodes["part_in_size"]["width"], nodes["part_in_size"]["height"]) == (60, 70)
    ends = {(edge.source.node_id, edge.destination.node_id, edge.destination.field) for edge in batch.graph.edges}
    assert {
        ("core_metadata", "canvas_output", "metadata"),
        ("part", "part_in_size", "image"),
        ("part_in_size", "canvas_output", "image"),
    } <= ends
    assert not any(destination == "part" and name == "metadata" for _, destination, name in ends)


async def test_hires_fix_uses_the_requested_resampling(database: Database) -> None:
    await add(database, "m")
    for how in ("lanczos", "nearest"):
        (nodes,) = expand_nodes(
            await resolve_request(database, hires_fix=HiresFix(1024, 1024, 10, in_pixels=True, resample=how))
        )
        assert nodes["enlarge"]["resample_mode"] == how
