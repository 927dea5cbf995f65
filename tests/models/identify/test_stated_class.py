"""Models of which no rule knows the sizes: the record class that the user states is accepted if the files have its form."""

import pytest

from invokeclone.kit.errors import InvokeCloneError
from invokeclone.models.errors import InvalidModel, InvalidModelRecord
from invokeclone.models.files.model_files import ModelFiles
from invokeclone.models.identify import registry
from invokeclone.models.identify.identify import identify
from tests.models.identify import component_layouts as parts
from tests.models.identify import layouts
from tests.models.identify.corpus import CASES, nf4, sdnq
from tests.models.identify.in_memory import FileInMemory
from tests.models.identify.lora_layouts import lora

FACTS = {"key": "k", "hash": "h", "path": "p", "file_size": 1, "name": "n", "source": "s", "source_type": "path"}
TINY_QWEN3 = parts.language_model(64, 2, 64, norm=True)
TINY_LORA = lora(layouts.flux_library(256), "diffusers", "attn.to_q")
OTHER = {"first.weight": (64, 64), "second.weight": (64, 64)}


def record(model, **stated):
    return identify(model, FACTS, stated, allow_unknown=True)


@pytest.mark.parametrize(
    ("expected", "shapes", "stated"),
    [
        ("Qwen3Encoder_Checkpoint_Config", TINY_QWEN3, {"type": "qwen3_encoder", "variant": "qwen3_4b"}),
        ("Qwen3Encoder_SDNQ_Config", sdnq(TINY_QWEN3), {"type": "qwen3_encoder", "variant": "qwen3_06b"}),
        ("Main_Checkpoint_Wan_Config", layouts.wan(64, 16), {"type": "main", "base": "wan", "variant": "t2v_a14b"}),
        ("Main_Checkpoint_Anima_Config", OTHER, {"type": "main", "base": "anima", "format": "checkpoint"}),
        ("Main_BnBNF4_FLUX_Config", nf4(OTHER), {"type": "main", "base": "flux", "variant": "dev"}),
        ("Main_Checkpoint_FLUX_Config", OTHER, {"type": "main", "base": "flux"}),
        ("LoRA_LyCORIS_FLUX_Config", TINY_LORA, {"type": "lora", "base": "flux", "format": "lycoris"}),
        ("LoRA_LyCORIS_Flux2_Config", TINY_LORA, {"type": "lora", "base": "flux2", "format": "lycoris"}),
        ("LoRA_LyCORIS_SD1_Config", lora(parts.unet_library(64), "unet"), {"type": "lora", "base": "sd-1"}),
        ("LoRA_LyCORIS_QwenImage_Config", lora(layouts.qwen_image(64), "bare", ".attn."), {"type": "lora", "base": "qwen-image"}),
        ("VAE_Checkpoint_Wan_Config", parts.vae_video(48), {"type": "vae", "base": "wan"}),
        ("ControlNet_Checkpoint_SD1_Config", parts.controlnet(64), {"type": "controlnet", "base": "sd-1"}),
        ("TI_File_SD1_Config", {"a": (4, 64)}, {"type": "embedding", "base": "sd-1"}),
        ("Spandrel_Checkpoint_Config", OTHER, {"type": "spandrel_image_to_image"}),
    ],
)  # fmt: skip
def test_a_stated_class_is_accepted(expected, shapes, stated):
    config = record(FileInMemory(shapes), **stated)
    assert type(config).__name__ == expected
    dumped = config.model_dump(mode="json")
    assert {name: dumped[name] for name in stated} == stated


def test_what_can_be_detected_is_detected():
    config = record(FileInMemory(OTHER, "canny.safetensors"), type="controlnet", base="sdxl")
    assert config.default_settings.preprocessor == "canny_image_processor"


@pytest.mark.parametrize(
    ("shapes", "stated", "reason"),
    [
        (OTHER, {"type": "main"}, "specify also its base"),
        (TINY_QWEN3, {"type": "qwen3_encoder"}, "specify also its variant"),
        (OTHER, {"type": "main", "base": "flux", "format": "diffusers"}, "is a folder, and this is a file"),
        (OTHER, {"type": "main", "base": "flux", "format": "gguf_quantized"}, "stored as checkpoint"),
        (OTHER, {"type": "main", "base": "flux", "format": "bnb_quantized_nf4b"}, "stored as checkpoint"),
        (nf4(OTHER), {"type": "main", "base": "flux", "format": "checkpoint"}, "stored as bnb_quantized_nf4b"),
        (OTHER, {"type": "lora", "base": "flux"}, "no tensors of a LoRA"),
        (TINY_LORA, {"type": "main", "base": "krea-2", "format": "checkpoint"}, "it is a model of type lora"),
        (OTHER, {"type": "t5_encoder", "format": "bnb_quantized_int8b"}, "not quantized to 8 bits"),
        (parts.vae_video(8), {"type": "vae", "base": "wan"}, "latent_channels"),
        (OTHER, {"type": "vae", "base": "sd-1", "prediction_type": "epsilon"}, "does not have all of these fields"),
        (parts.sd_checkpoint(1024), {"type": "main", "base": "sd-1", "format": "checkpoint"}, "the model's is sd-2"),
        (layouts.flux(), {"type": "vae", "base": "flux"}, "it is a model of type main, format checkpoint and base flux"),
    ],
)  # fmt: skip
def test_files_of_another_form_or_kind_are_refused(shapes, stated, reason):
    with pytest.raises(InvalidModel, match=reason):
        record(FileInMemory(shapes), **stated)


@pytest.mark.parametrize(
    ("stated", "reason"),
    [
        ({"type": "main", "format": "lycoris"}, "no kind of model has format lycoris with type main; possible: bnb"),
        ({"type": "main", "format": "lora"}, "no kind of model has format lora"),
        ({"type": "t2i_adapter", "base": "flux"}, "no kind of model has base flux with type t2i_adapter; possible: sd-1, sdxl"),
        ({"type": "nothing"}, "no kind of model has type nothing"),
        ({"type": "unknown", "base": "sd-1"}, "no kind of model has base sd-1 with type unknown; possible: unknown"),
    ],
)  # fmt: skip
def test_a_kind_that_does_not_exist_is_refused(stated, reason):
    with pytest.raises(InvalidModelRecord, match=reason):
        record(FileInMemory(OTHER), **stated)


def test_folders_of_unknown_sizes(make):
    config = {"architectures": ["Gemma2Model"], "hidden_size": 64}
    make.json("a/config.json", config)
    with pytest.raises(InvalidModel, match="it has no weights"):
        record(ModelFiles(make.folder / "a"), type="gemma2_encoder", format="gemma2_encoder")
    make.tensors("a/model.safetensors", {"x": (1,)})
    stated = record(ModelFiles(make.folder / "a"), type="gemma2_encoder", format="gemma2_encoder")
    assert type(stated).__name__ == "Gemma2Encoder_Gemma2Encoder_Config"
    with pytest.raises(InvalidModel, match="not quantized by SDNQ"):
        record(ModelFiles(make.folder / "a"), type="qwen3_encoder", format="sdnq_quantized", variant="qwen3_4b")


async def test_install_with_a_stated_class(client, install, make):
    path = make.tensors(
        "lora.safetensors", {"lora_unet_a.lora_down.weight": (4, 8), "lora_unet_a.lora_up.weight": (8, 4)}
    )
    answer = await client.post("/install", params={"source": str(path)}, json={"type": "main", "format": "lycoris"})
    assert (answer.status_code, answer.json()["detail"][:23]) == (409, "no kind of model has fo")
    job = await install(path, type="main", base="flux", format="checkpoint", variant="dev")
    assert (job.status, "tensors of a LoRA" in job.error) == ("error", True)
    job = await install(path, type="lora", base="qwen-image", format="lycoris")
    assert job.status == "completed"
    record = (await client.get(f"/i/{job.config_out.key}")).json()
    assert (record["type"], record["base"], record["format"]) == ("lora", "qwen-image", "lycoris")
    assert (await client.post(f"/i/{job.config_out.key}/reidentify")).json() == record


FIRST = list({case.expected: case for case in CASES if case.in_memory is not None}.values())
ODD_SHAPES = [(), (0,), (0, 0), (1,), (2**40, 3), (1, 1, 1, 1, 1, 1, 1)]


@pytest.mark.parametrize("case", FIRST, ids=lambda case: case.id)
def test_odd_shapes_cause_no_other_error(case):
    config = next(config for config in registry.config_classes() if config.__name__ == case.expected)
    for shape in ODD_SHAPES:
        model = FileInMemory(dict.fromkeys(case.in_memory.tensors, shape), case.in_memory.path.name)
        for stated in ({}, registry.tag_fields(config)):
            try:
                record(model, **stated)
            except InvokeCloneError as error:
                assert str(error).startswith(model.path.name)  # noqa: PT017
