"""Previews by a tiny autoencoder: only with the setting and an installed one; otherwise, and after an error, the linear map."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from invokeclone.graph.vocabulary.taxonomy import BaseModelType
from invokeclone.kit.resources import Resources
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.identify import registry
from invokeclone.models.records import store
from invokeclone.worker.interfaces.previews import Previews
from invokeclone.worker.interfaces.tools import Tools

LATENTS = torch.randn(2, 4, 80, 72, generator=torch.Generator().manual_seed(0))


def record(key: str, path: str) -> ModelConfig:
    fields = {
        "key": key, "hash": f"blake3:{key}", "path": path, "file_size": 1, "name": key, "source": path,
        "source_type": "path", "base": "sd-1", "type": "vae", "format": "diffusers",
    }  # fmt: skip
    return registry.parse(fields)


@pytest.fixture
async def previews(resources: Resources, tools: Tools) -> Any:
    """Make the previews of a node with changed settings; a tiny autoencoder and a usual one are installed."""
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

    torch.manual_seed(0)
    channels = dict.fromkeys(("encoder_block_out_channels", "decoder_block_out_channels"), (4, 4, 4, 4))
    models = resources.settings.models_path
    AutoencoderTiny(**channels, num_encoder_blocks=(1,) * 4, num_decoder_blocks=(1,) * 4).save_pretrained(models / "t")
    (models / "kl").mkdir()
    (models / "kl" / "config.json").write_text('{"_class_name": "AutoencoderKL"}', encoding="utf-8")
    async with resources.database.write() as connection:
        await store.add(connection, record("usual", "kl"))
        await store.add(connection, record("tiny", "t"))

    def make(**settings: Any) -> Previews:
        changed = replace(tools, resources=_with(resources, **settings))
        session = SimpleNamespace(tools=changed, model_files=changed.backend.model_files())
        return Previews(session)  # type: ignore[arg-type]

    return make


def _with(resources: Resources, **settings: Any) -> Resources:
    return Resources(resources.settings.model_copy(update=settings), resources.database, resources.events)


async def render(previews: Previews, base: BaseModelType = BaseModelType.StableDiffusion1) -> tuple[Any, int]:
    return await asyncio.to_thread(previews.render, LATENTS, base)


async def test_by_default_previews_are_a_linear_map(previews: Any) -> None:
    image, factor = await render(previews())
    assert (image.size, factor) == ((72, 80), 8)


@pytest.mark.parametrize("base", [BaseModelType.StableDiffusion1, BaseModelType.StableDiffusion2])
async def test_a_tiny_autoencoder_decodes_previews(
    previews: Any, base: BaseModelType, tools: Tools, resources: Resources
) -> None:
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

    image, factor = await render(previews(tiny_autoencoder_previews=True), base)
    assert (image.size, factor) == ((288, 320), 2)  # 640 pixels high: above the largest side of previews
    with torch.inference_mode():
        pixels = AutoencoderTiny.from_pretrained(resources.settings.models_path / "t").decode(LATENTS[:1]).sample[0]
    levels = pixels.add(1).mul(127.5).clamp(0, 255).round().byte().permute(1, 2, 0).numpy()
    assert image == Image.fromarray(levels).reduce(2)
    assert tools.engine.resident() == ["tiny"]


async def test_other_bases_keep_the_linear_map(previews: Any) -> None:
    image, factor = await render(previews(tiny_autoencoder_previews=True), BaseModelType.StableDiffusionXL)
    assert (image.size, factor) == ((72, 80), 8)


async def test_a_damaged_autoencoder_is_reported_once(previews: Any, resources: Resources, logged: Any) -> None:
    for file in (resources.settings.models_path / "t").glob("*.safetensors"):
        file.write_bytes(b"")
    renders = previews(tiny_autoencoder_previews=True)
    for _ in range(2):
        image, factor = await render(renders)
        assert (image.size, factor) == ((72, 80), 8)
    lines = [line.getMessage() for line in logged if "no previews by tiny" in line.getMessage()]
    assert len(lines) == 1
