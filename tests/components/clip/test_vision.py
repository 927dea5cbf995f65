"""CLIP's image encoders from folders, and images as they take them."""

from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from PIL import Image

from invokeclone.components.clip.vision import image_embeds, penultimate, pixels
from invokeclone.engine.loading import loaders
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelFormat, ModelType

if TYPE_CHECKING:
    from invokeclone.engine.cache import ModelCache

VISION = {
    "hidden_size": 16,
    "intermediate_size": 20,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "patch_size": 56,
}
TEXT = {"hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 9}
WIDTH = 24


@pytest.fixture(params=["alone", "with a text encoder"])
def made(request: pytest.FixtureRequest) -> Any:
    from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(0)
    if request.param == "alone":
        return CLIPVisionModelWithProjection(CLIPVisionConfig(**VISION, projection_dim=WIDTH)).eval()
    vision, text = {**VISION, "projection_dim": WIDTH}, {**TEXT, "projection_dim": WIDTH}
    return CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=WIDTH)).eval()


def test_load_from_a_folder(made: Any, tmp_path: Path, model_cache: "ModelCache"):
    made.save_pretrained(tmp_path / "encoder")
    record = SimpleNamespace(
        key="vit", name="vit", base=BaseModelType.Any, type=ModelType.CLIPVision, format=ModelFormat.Diffusers
    )
    encoder = loaders.load(model_cache, record, tmp_path / "encoder").model
    inputs = pixels([Image.linear_gradient("L")])
    with torch.inference_mode():
        expected = made.vision_model(inputs, output_hidden_states=True)
        assert torch.allclose(image_embeds(encoder, inputs), made.visual_projection(expected.pooler_output), atol=1e-6)
        assert torch.allclose(penultimate(encoder, inputs), expected.hidden_states[-2], atol=1e-6)
    assert penultimate(encoder, inputs).shape == (1, 17, 16)


def test_images_are_center_cropped():
    wide = Image.new("RGB", (300, 100), "red")
    wide.paste("blue", (100, 0, 200, 100))
    tall = Image.new("RGBA", (100, 300), "red")
    tall.paste("blue", (0, 100, 100, 200))
    batch = pixels([wide, tall])
    inner = batch[:, :, 8:-8, 8:-8]  # the edges of the blue square are softened
    mean, deviation = (
        torch.tensor([0.48145466, 0.4578275, 0.40821073]),
        torch.tensor([0.26862954, 0.26130258, 0.27577711]),
    )
    blue = ((torch.tensor([0.0, 0.0, 1.0]) - mean) / deviation).reshape(3, 1, 1)
    assert batch.shape == (2, 3, 224, 224)
    assert torch.allclose(inner, blue.expand_as(inner), atol=1e-5)
