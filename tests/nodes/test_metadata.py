"""Metadata: built, read back, and turned into models again."""

from types import SimpleNamespace
from typing import Any

import pytest

from invokeclone.graph.fields import ImageField, MetadataField
from invokeclone.graph.model_fields import CLIPField, LoRAField, ModelIdentifierField, UNetField, VAEField
from invokeclone.graph.outputs import MetadataItemField
from invokeclone.nodes import metadata, metadata_adapters, metadata_models, metadata_values
from invokeclone.version import API_VERSION

NOTHING: Any = None


def identifier(key: str, kind: str = "main", base: str = "sd-1") -> dict[str, str]:
    return {"key": key, "hash": "h", "name": key, "base": base, "type": kind}


class Models:
    """Knows models whose key does not begin with "lost"."""

    def exists(self, key: str) -> bool:
        return not key.startswith("lost")

    def search_by_attrs(self, name: str, **_: Any) -> list[Any]:
        return [SimpleNamespace(**identifier(name, "clip_vision", "any"))] if name.startswith("ip_") else []


class Images:
    def get_metadata(self, image_name: str) -> MetadataField | None:
        return {"with": MetadataField({"seed": 5}), "without": None}[image_name]


CONTEXT: Any = SimpleNamespace(models=Models(), images=Images(), logger=SimpleNamespace(warning=lambda message: None))


def test_items() -> None:
    item = metadata.MetadataItemInvocation(label="seed", value=5).invoke(NOTHING).item
    assert (item.label, item.value) == ("seed", 5)
    one = metadata.MetadataInvocation(items=item).invoke(NOTHING).metadata
    assert one.root == {"seed": 5}
    items = [item, MetadataItemField(label="a", value="b"), MetadataItemField(label="seed", value=6)]
    two = metadata.MetadataInvocation(items=items).invoke(NOTHING).metadata
    assert two.root == {"seed": 6, "a": "b"}
    merged = metadata.MergeMetadataInvocation(collection=[two, one]).invoke(NOTHING).metadata
    assert merged.root == {"seed": 5, "a": "b"}


def test_core_metadata() -> None:
    node = metadata.CoreMetadataInvocation.model_validate(
        {"seed": 5, "positive_prompt": "a cat", "mine": 1, "model": identifier("m"), "is_intermediate": True}
    )
    assert node.invoke(NOTHING).metadata.root == {
        "positive_prompt": "a cat",
        "seed": 5,
        "model": identifier("m"),
        "mine": 1,
        "app_version": API_VERSION,
    }


def test_linked_item() -> None:
    vae = VAEField(vae=ModelIdentifierField.model_validate(identifier("v", "vae")))
    node = metadata.MetadataItemLinkedInvocation(label="vae", value=vae, metadata=MetadataField({"a": 1}))
    assert node.invoke(NOTHING).metadata.root == {"a": 1, "vae": vae.vae, "app_version": API_VERSION}
    node = metadata.MetadataItemLinkedInvocation(custom_label="mine", value=2)
    assert node.invoke(NOTHING).metadata.root["mine"] == 2


def test_from_image() -> None:
    def read(name: str) -> dict[str, Any]:
        return metadata.MetadataFromImageInvocation(image=ImageField(image_name=name)).invoke(CONTEXT).metadata.root

    assert read("with") == {"seed": 5}
    assert read("without") == {}


def test_one_value_from_image() -> None:
    def read(name: str, key: str) -> str:
        image = ImageField(image_name=name)
        return metadata.MetadataFieldExtractorInvocation(image=image, key=key).invoke(CONTEXT).value

    assert read("with", "seed") == "5"
    with pytest.raises(KeyError):
        read("with", "steps")
    with pytest.raises(ValueError, match="No metadata"):
        read("without", "seed")


KNOWN = MetadataField(
    {"seed": 5, "mine": "text", "cfg_scale": [1.0, 2.0], "scheduler": "ddim", "seamless_x": True, "steps": 4}
)


def test_values() -> None:
    integer = metadata_values.MetadataToIntegerInvocation
    assert integer(label="seed", default_value=1, metadata=KNOWN).invoke(NOTHING).value == 5
    assert integer(label="width", default_value=1, metadata=KNOWN).invoke(NOTHING).value == 1
    assert integer(label="width", default_value=1).invoke(NOTHING).value == 1
    string = metadata_values.MetadataToStringInvocation(custom_label="mine", default_value="", metadata=KNOWN)
    assert string.invoke(NOTHING).value == "text"
    scheduler = metadata_values.MetadataToSchedulerInvocation
    assert scheduler(label="scheduler", metadata=KNOWN).invoke(NOTHING).scheduler == "ddim"
    assert scheduler(label="scheduler").invoke(NOTHING).scheduler == "euler"
    boolean = metadata_values.MetadataToBoolInvocation(label="seamless_x", default_value=False, metadata=KNOWN)
    assert boolean.invoke(NOTHING).value is True


def test_collections_of_values() -> None:
    floats = metadata_values.MetadataToFloatCollectionInvocation(label="cfg_scale", default_value=[7.5], metadata=KNOWN)
    assert floats.invoke(NOTHING).collection == [1.0, 2.0]
    integers = metadata_values.MetadataToIntegerCollectionInvocation(label="steps", default_value=[1], metadata=KNOWN)
    assert integers.invoke(NOTHING).collection == [4]


def test_model() -> None:
    default = ModelIdentifierField.model_validate(identifier("d"))
    known = MetadataField({"model": identifier("m")})
    node = metadata_models.MetadataToModelInvocation(default_value=default, metadata=known)
    output = node.invoke(CONTEXT)
    assert (output.name, output.unet.unet.key, output.clip.tokenizer.submodel_type) == ("m", "m", "tokenizer")
    assert metadata_models.MetadataToModelInvocation(default_value=default).invoke(CONTEXT).name == "d"
    sdxl = metadata_models.MetadataToSDXLModelInvocation(default_value=default, metadata=known).invoke(CONTEXT)
    assert (sdxl.clip2.text_encoder.submodel_type, sdxl.vae.vae.submodel_type) == ("text_encoder_2", "vae")
    lost = MetadataField({"model": identifier("lost")})
    with pytest.raises(ValueError, match="Unknown model"):
        metadata_models.MetadataToModelInvocation(default_value=default, metadata=lost).invoke(CONTEXT)


def test_vae() -> None:
    default = VAEField(vae=ModelIdentifierField.model_validate(identifier("d", "vae")))

    def read(known: dict[str, Any]) -> str:
        node = metadata_models.MetadataToVAEInvocation(default_value=default, metadata=MetadataField(known))
        return node.invoke(CONTEXT).vae.vae.key

    assert read({}) == "d"
    assert read({"vae": identifier("v", "vae")}) == "v"
    assert read({"vae": {"vae": identifier("w", "vae"), "seamless_axes": []}}) == "w"


LORAS = MetadataField(
    {
        "loras": [
            {"model": identifier("one", "lora"), "weight": 0.5},
            {"model": identifier("lost", "lora"), "weight": 0.5},
            {"model": identifier("two", "lora"), "weight": 0.7},
        ]
    }
)


def test_loras() -> None:
    model = ModelIdentifierField.model_validate(identifier("m"))
    present = LoRAField(lora=ModelIdentifierField.model_validate(identifier("two", "lora")), weight=1)
    unet = UNetField(unet=model, scheduler=model, loras=[present])
    clip = CLIPField(tokenizer=model, text_encoder=model, skipped_layers=0, loras=[])
    output = metadata_models.MetadataToLorasInvocation(unet=unet, clip=clip, metadata=LORAS).invoke(CONTEXT)
    assert output.unet is not None
    assert output.clip is not None
    assert [(one.lora.key, one.weight) for one in output.unet.loras] == [("two", 1), ("one", 0.5)]
    assert [(one.lora.key, one.weight) for one in output.clip.loras] == [("one", 0.5), ("two", 0.7)]
    sdxl = metadata_models.MetadataToSDXLLorasInvocation(clip2=clip, metadata=LORAS).invoke(CONTEXT)
    assert sdxl.unet is None
    listed = metadata_models.MetadataToLorasCollectionInvocation(loras=present, metadata=LORAS).invoke(CONTEXT)
    assert [(one.lora.key, one.weight) for one in listed.lora] == [("two", 1), ("one", 0.5)]


def test_adapters() -> None:
    image, control = {"image_name": "i"}, identifier("c", "controlnet")
    known = MetadataField(
        {
            "controlnets": [{"image": image, "processed_image": {"image_name": "p"}, "control_model": control}],
            "t2iAdapters": [{"image": image, "t2i_adapter_model": identifier("t", "t2i_adapter"), "weight": 0.5}],
            "ipAdapters": [
                {
                    "image": image,
                    "ip_adapter_model": identifier("a", "ip_adapter"),
                    "clip_vision_model": "ViT-H",
                    "method": "style",
                    "weight": 0.6,
                    "begin_step_percent": 0,
                    "end_step_percent": 0.5,
                }
            ],
        }
    )
    (found,) = metadata_adapters.MetadataToControlnetsInvocation(metadata=known).invoke(CONTEXT).control_list
    assert (found.image.image_name, found.control_model.key) == ("p", "c")
    (found,) = metadata_adapters.MetadataToT2IAdaptersInvocation(metadata=known).invoke(CONTEXT).t2i_adapter_list
    assert (found.image.image_name, found.weight) == ("i", 0.5)
    (found,) = metadata_adapters.MetadataToIPAdaptersInvocation(metadata=known).invoke(CONTEXT).ip_adapter_list
    assert (found.method, found.image_encoder_model.key) == ("style", "ip_adapter_sd_image_encoder")
    known.root["ipAdapters"][0]["clip_vision_model"] = "ViT-L"
    with pytest.raises(ValueError, match="not installed"):
        metadata_adapters.MetadataToIPAdaptersInvocation(metadata=known).invoke(CONTEXT)
    nothing = metadata_adapters.MetadataToControlnetsInvocation(control_list=None).invoke(CONTEXT)
    assert nothing.control_list == []
