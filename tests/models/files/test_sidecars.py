"""Notes and a picture beside a LoRA's file become its description, trigger words and cover."""

import json

import pytest
from PIL import Image

from tests.applications import encode_image

LORA = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
SHAPES = {f"{LORA}.lora_down.weight": (4, 768), f"{LORA}.lora_up.weight": (8, 4)}


@pytest.fixture
def lora(make):
    return make.tensors("cat.safetensors", SHAPES)


@pytest.mark.parametrize(
    ("notes", "description", "words"),
    [
        ({"description": "a cat", "activation text": "cat, tabby,cat , "}, "a cat", ["cat", "tabby"]),
        ({"description": "", "trainedWords": ["cat", 3, " cat "]}, None, ["cat"]),
        ({"description": 5, "trigger_words": {"a": 1}}, None, None),
        ([], None, None),
        ("{ no json", None, None),
    ],
)
async def test_description_and_trigger_words_come_from_sidecar_notes(install, lora, notes, description, words):
    lora.with_suffix(".json").write_text(notes if isinstance(notes, str) else json.dumps(notes))
    config = (await install(lora)).config_out
    assert (config.type, config.description, config.trigger_phrases) == ("lora", description, words)


async def test_stated_fields_override_sidecars(install, lora):
    lora.with_suffix(".json").write_text(json.dumps({"description": "theirs", "trigger_words": "x"}))
    config = (await install(lora, description="mine")).config_out
    assert (config.description, config.trigger_phrases) == ("mine", ["x"])


async def test_sidecar_image_becomes_the_cover_of_a_moved_model(client, install, lora):
    lora.with_suffix(".png").write_bytes(encode_image(Image.new("RGB", (600, 300))))
    key = (await install(lora, inplace=False)).config_out.key
    assert (await client.get(f"/i/{key}/image")).status_code == 200
    assert (await client.get(f"/i/{key}")).json()["cover_image"]


async def test_a_damaged_sidecar_image_is_ignored(client, install, lora, lines):
    lora.with_suffix(".png").write_bytes(b"no picture")
    job = await install(lora)
    assert job.status == "completed"
    assert (await client.get(f"/i/{job.config_out.key}/image")).status_code == 404
    assert any("skipped" in line for line in lines)


async def test_other_models_have_no_sidecars(install, make):
    path = make.vae("cat.safetensors")
    path.with_suffix(".json").write_text(json.dumps({"description": "theirs"}))
    assert (await install(path)).config_out.description is None


async def test_loras_can_be_listed_changed_and_deleted(client, install, lora):
    key = (await install(lora, inplace=False)).config_out.key
    models = (await client.get("/", params={"model_type": "lora"})).json()["models"]
    assert [(model["key"], model["format"], model["base"]) for model in models] == [(key, "lycoris", "sd-1")]
    settings = {"weight": 0.5, "weight_min": 0, "weight_max": 1}
    changed = await client.patch(f"/i/{key}", json={"default_settings": settings, "name": "Cat"})
    assert (changed.json()["name"], changed.json()["default_settings"]) == ("Cat", settings)
    assert (await client.delete(f"/i/{key}")).status_code == 204
