"""Metadata: built, read back, and turned into models again."""

from types import SimpleNamespace
from typing import Any

import pytest

from invokeclone.components.autoencoders.fields import VAEField
from invokeclone.graph.invocations.outputs import MetadataItemField
from invokeclone.graph.vocabulary.fields import ImageField, MetadataField
from invokeclone.graph.vocabulary.model_fields import LoRAField, ModelIdentifierField
from invokeclone.nodes.metadata import adapters, core, models, values
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
    item = core.MetadataItemInvocation(label="seed", value=5).invoke(NOTHING).item
    assert (item.label, item.value) == ("seed", 5)
    metadata = core.MetadataInvocation(items=item).invoke(NOTHING).metadata
    assert metadata.root == {"seed": 5}
    items = [item, MetadataItemField(label="a", value="b"), MetadataItemField(label="seed", value=6)]
    two = core.MetadataInvocation(items=items).invoke(NOTHING).metadata
    assert two.root == {"seed": 6, "a": "b"}
    merged = core.MergeMetadataInvocation(collection=[two, metadata]).invoke(NOTHING).metadata
    assert merged.root == {"seed": 5, "a": "b"}


def test_core_metadata() -> None:
    node = core.CoreMetadataInvocation.model_validate(
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
    node = core.MetadataItemLinkedInvocation(label="vae", value=vae, metadata=MetadataField({"a": 1}))
    assert node.invoke(NOTHING).metadata.root == {"a": 1, "vae": vae.vae, "app_version": API_VERSION}
    node = core.MetadataItemLinkedInvocation(custom_label="mine", value=2)
    assert node.invoke(NOTHING).metadata.root["mine"] == 2


def test_from_image() -> None:
    def read(name: str) -> dict[str, Any]:
        return core.MetadataFromImageInvocation(image=ImageField(image_name=name)).invoke(CONTEXT).metadata.root

    assert read("with") == {"seed": 5}
    assert read("without") == {}


def test_one_value_from_image() -> None:
    def read(name: str, key: str) -> str:
        image = ImageField(image_name=name)
        return core.MetadataFieldExtractorInvocation(image=image, key=key).invoke(CONTEXT).value

    assert read("with", "seed") == "5"
    with pytest.raises(KeyError):
        read("with", "steps")
    with pytest.raises(ValueError, match="No metadata"):
        read("without", "seed")


METADATA = MetadataField(
    {"seed": 5, "mine": "text", "cfg_scale": [1.0, 2.0], "scheduler": "ddim", "seamless_x": True, "steps": 4}
)


def test_metadata_values_are_read_with_defaults() -> None:
    integer = values.MetadataToIntegerInvocation
    assert integer(label="seed", default_value=1, metadata=METADATA).invoke(NOTHING).value == 5
    assert integer(label="width", default_value=1, metadata=METADATA).invoke(NOTHING).value == 1
    assert integer(label="width", default_value=1).invoke(NOTHING).value == 1
    string = values.MetadataToStringInvocation(custom_label="mine", default_value="", metadata=METADATA)
    assert string.invoke(NOTHING).value == "text"
    scheduler = values.MetadataToSchedulerInvocation
    assert scheduler(label="scheduler", metadata=METADATA).invoke(NOTHING).scheduler == "ddim"
    assert scheduler(label="scheduler").invoke(NOTHING).scheduler == "euler"
    boolean = values.MetadataToBoolInvocation(label="seamless_x", default_value=False, metadata=METADATA)
    assert boolean.invoke(NOTHING).value is True


def test_collections_of_values() -> None:
    floats = values.MetadataToFloatCollectionInvocation(label="cfg_scale", default_value=[7.5], metadata=METADATA)
    assert floats.invoke(NOTHING).collection == [1.0, 2.0]
    integers = values.MetadataToIntegerCollectionInvocation(label="steps", default_value=[1], metadata=METADATA)
    assert integers.invoke(NOTHING).collection == [4]


def test_vae() -> None:
    default = VAEField(vae=ModelIdentifierField.model_validate(identifier("d", "vae")))

    def read(metadata: dict[str, Any]) -> str:
        node = models.MetadataToVAEInvocation(default_value=default, metadata=MetadataField(metadata))
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


def test_lora_collection() -> None:
    present = LoRAField(lora=ModelIdentifierField.model_validate(identifier("two", "lora")), weight=1)
    output = models.MetadataToLorasCollectionInvocation(loras=present, metadata=LORAS).invoke(CONTEXT)
    assert [(entry.lora.key, entry.weight) for entry in output.lora] == [("two", 1), ("one", 0.5)]


def test_adapters() -> None:
    image, control = {"image_name": "i"}, identifier("c", "controlnet")
    recorded = MetadataField(
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
    (item,) = adapters.MetadataToControlnetsInvocation(metadata=recorded).invoke(CONTEXT).control_list
    assert (item.image.image_name, item.control_model.key) == ("p", "c")
    (item,) = adapters.MetadataToT2IAdaptersInvocation(metadata=recorded).invoke(CONTEXT).t2i_adapter_list
    assert (item.image.image_name, item.weight) == ("i", 0.5)
    (item,) = adapters.MetadataToIPAdaptersInvocation(metadata=recorded).invoke(CONTEXT).ip_adapter_list
    assert (item.method, item.image_encoder_model.key) == ("style", "ip_adapter_sd_image_encoder")
    recorded.root["ipAdapters"][0]["clip_vision_model"] = "ViT-L"
    with pytest.raises(ValueError, match="not installed"):
        adapters.MetadataToIPAdaptersInvocation(metadata=recorded).invoke(CONTEXT)
    nothing = adapters.MetadataToControlnetsInvocation(control_list=None).invoke(CONTEXT)
    assert nothing.control_list == []
