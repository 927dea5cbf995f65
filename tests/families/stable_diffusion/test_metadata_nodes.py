"""Nodes that load Stable Diffusion models and their LoRAs again as metadata records them."""

from types import SimpleNamespace
from typing import Any

import pytest

from invokeclone.components.clip.fields import CLIPField
from invokeclone.families.stable_diffusion.fields import UNetField
from invokeclone.families.stable_diffusion.nodes import metadata
from invokeclone.graph.vocabulary.fields import MetadataField
from invokeclone.graph.vocabulary.model_fields import LoRAField, ModelIdentifierField

CONTEXT: Any = SimpleNamespace(
    models=SimpleNamespace(exists=lambda key: not key.startswith("lost")),
    logger=SimpleNamespace(warning=lambda message: None),
)


def identifier(key: str, kind: str = "main") -> dict[str, str]:
    return {"key": key, "hash": "h", "name": key, "base": "sd-1", "type": kind}


LORAS = MetadataField(
    {
        "loras": [
            {"model": identifier("one", "lora"), "weight": 0.5},
            {"model": identifier("lost", "lora"), "weight": 0.5},
            {"model": identifier("two", "lora"), "weight": 0.7},
        ]
    }
)


def test_model() -> None:
    default = ModelIdentifierField.model_validate(identifier("d"))
    item = MetadataField({"model": identifier("m")})
    node = metadata.MetadataToModelInvocation(default_value=default, metadata=item)
    output = node.invoke(CONTEXT)
    assert (output.name, output.unet.unet.key, output.clip.tokenizer.submodel_type) == ("m", "m", "tokenizer")
    assert metadata.MetadataToModelInvocation(default_value=default).invoke(CONTEXT).name == "d"
    sdxl = metadata.MetadataToSDXLModelInvocation(default_value=default, metadata=item).invoke(CONTEXT)
    assert (sdxl.clip2.text_encoder.submodel_type, sdxl.vae.vae.submodel_type) == ("text_encoder_2", "vae")
    lost = MetadataField({"model": identifier("lost")})
    with pytest.raises(ValueError, match="Unknown model"):
        metadata.MetadataToModelInvocation(default_value=default, metadata=lost).invoke(CONTEXT)


def test_loras() -> None:
    model = ModelIdentifierField.model_validate(identifier("m"))
    present = LoRAField(lora=ModelIdentifierField.model_validate(identifier("two", "lora")), weight=1)
    unet = UNetField(unet=model, scheduler=model, loras=[present])
    clip = CLIPField(tokenizer=model, text_encoder=model, skipped_layers=0, loras=[])
    output = metadata.MetadataToLorasInvocation(unet=unet, clip=clip, metadata=LORAS).invoke(CONTEXT)
    assert output.unet is not None
    assert output.clip is not None
    assert [(entry.lora.key, entry.weight) for entry in output.unet.loras] == [("two", 1), ("one", 0.5)]
    assert [(entry.lora.key, entry.weight) for entry in output.clip.loras] == [("one", 0.5), ("two", 0.7)]
    sdxl = metadata.MetadataToSDXLLorasInvocation(clip2=clip, metadata=LORAS).invoke(CONTEXT)
    assert sdxl.unet is None
