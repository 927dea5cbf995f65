"""Graphs of FLUX.2: klein and dev have nodes of their own; reference images, guidance and negative prompts."""

from typing import Any

import pytest

from invokeclone.graph.prompts import Prompt
from invokeclone.graph.recipes import AppliedLoRA, CannotBuild, ImageSettings, ReferenceImage, find_recipe
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, Flux2VariantType

MODEL = {"key": "a", "hash": "blake3:0", "name": "a", "base": "flux2", "type": "main"}
LORA = AppliedLoRA({**MODEL, "key": "b", "type": "lora"})


def nodes(variant: str, **changes: Any) -> dict[str, dict[str, Any]]:
    """Return the nodes of a graph by type."""
    settings: dict[str, Any] = {
        "model": MODEL, "prompt": Prompt.plain("a cat"), "seed": 1, "width": 64, "height": 64, "steps": 2,
        "guidance": 4.0, "scheduler": "euler", "loras": [LORA],
    }  # fmt: skip
    recipe = find_recipe(BaseModelType.Flux2, variant)
    assert recipe is not None
    graph = recipe.build(ImageSettings(**{**settings, **changes}))
    return {node["type"]: node for node in graph["nodes"].values()}


@pytest.mark.parametrize(
    ("variant", "kind", "other"),
    [(Flux2VariantType.Dev, "dev", "klein"), (Flux2VariantType.Klein9BBase, "klein", "dev")],
)
def test_nodes_are_those_of_the_variant(variant: str, kind: str, other: str) -> None:
    types = nodes(variant).keys()
    assert {f"flux2_{kind}_{name}" for name in ("model_loader", "text_encoder", "lora_collection_loader")} <= types
    assert not any(name.startswith(f"flux2_{other}") for name in types)


def test_guidance_of_dev_is_an_input_of_the_network() -> None:
    dev, with_negative = nodes(Flux2VariantType.Dev), nodes(Flux2VariantType.Dev, cfg_scale=3.0)
    assert (dev["flux2_denoise"]["guidance"], dev["flux2_denoise"]["cfg_scale"]) == (4.0, 1.0)
    assert (with_negative["flux2_denoise"]["guidance"], with_negative["flux2_denoise"]["cfg_scale"]) == (4.0, 3.0)
    assert (dev["core_metadata"]["guidance"], with_negative["core_metadata"]["cfg_scale"]) == (4.0, 3.0)
    klein = nodes(Flux2VariantType.Klein4B)
    assert klein["flux2_denoise"]["cfg_scale"] == klein["core_metadata"]["cfg_scale"] == 4.0
    assert "guidance" not in klein["flux2_denoise"]


@pytest.mark.parametrize("variant", [Flux2VariantType.Dev, Flux2VariantType.Klein4B])
def test_reference_images_reach_the_denoise_node(variant: str) -> None:
    built = nodes(variant, references=[ReferenceImage(None, "a.png")])
    assert built["flux_kontext"]["image"] == {"image_name": "a.png"}
    assert "collect" in built
    with pytest.raises(CannotBuild, match="IP-Adapters are not supported"):
        nodes(variant, references=[ReferenceImage(MODEL, "a.png")])
