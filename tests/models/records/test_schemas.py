"""Settings with limits, the union of records, and what a family has to do to join it."""

import subprocess
import sys

import pytest
from pydantic import TypeAdapter, ValidationError

from invokeclone.models.configs.defaults import (
    ControlAdapterDefaultSettings,
    LoraModelDefaultSettings,
    MainModelDefaultSettings,
)
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.models.identify import registry
from invokeclone.models.identify.union import AnyModelConfig
from invokeclone.models.records.schemas import ModelRecordChanges
from invokeclone.models.records.store import _columns

RECORD = {
    "key": "k",
    "hash": "blake3:0",
    "path": "p",
    "file_size": 1,
    "name": "n",
    "source": "s",
    "source_type": "path",
    "type": "main",
    "format": "checkpoint",
    "base": "sd-1",
    "prediction_type": "epsilon",
    "variant": "normal",
}


@pytest.mark.parametrize(
    "wrong",
    [
        {"width": 60}, {"width": 100}, {"height": 56}, {"steps": 0}, {"cfg_scale": 0.5}, {"guidance": 0},
        {"cfg_rescale_multiplier": 1}, {"cfg_rescale_multiplier": -0.1}, {"scheduler": "best"}, {"vae_precision": "fp8"},
        {"more": 1},
    ],
)  # fmt: skip
def test_main_settings_have_limits(wrong):
    with pytest.raises(ValidationError):
        MainModelDefaultSettings(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"weight": 2.5},
        {"weight": -1.1},
        {"weight_min": 3},
        {"weight_min": 1, "weight_max": 1},
        {"weight": 1, "weight_max": 0.5},
    ],
)
def test_lora_weight_lies_within_its_limits(wrong):
    with pytest.raises(ValidationError):
        LoraModelDefaultSettings(**wrong)
    assert LoraModelDefaultSettings(weight=3, weight_max=4).weight == 3


def test_control_settings_require_a_preprocessor():
    assert ControlAdapterDefaultSettings(preprocessor=None).preprocessor is None
    with pytest.raises(ValidationError):
        ControlAdapterDefaultSettings()


def test_a_record_becomes_the_class_of_its_tag():
    parse = TypeAdapter(AnyModelConfig)
    config = parse.validate_python(RECORD)
    assert type(config).__name__ == "Main_Checkpoint_SD1_Config"
    assert parse.validate_json(parse.dump_json(config)) == config
    assert parse.dump_python(config, mode="json")["source_url"] is None


def test_every_class_is_recognized_from_its_record():
    """SDNQ files and folders have the same type, format and base: the fields tell which it is."""
    common = {"key": "k", "hash": "", "path": "p", "file_size": 1, "name": "n", "source": "s", "source_type": "path"}
    needed = {
        "provider_id": "a", "provider_model_id": "b", "capabilities": {}, "image_encoder_model_id": "e",
        "prediction_type": "epsilon", "latent_channels": 16,
    }  # fmt: skip
    for config in registry.config_classes():
        words = getattr(config.model_fields.get("variant"), "annotation", None)
        variant = {"variant": next(iter(words))} if isinstance(words, type) else {}
        record = config.model_validate(
            common | {name: v for name, v in needed.items() if name in config.model_fields} | variant
        )
        assert type(registry.parse(record.model_dump(mode="json"))) is config


@pytest.mark.parametrize("wrong", [RECORD | {"base": "cogview4"}, RECORD | {"variant": "x"}, [], {}, "text"])
def test_a_record_of_no_class_is_refused(wrong):
    with pytest.raises(ValidationError):
        TypeAdapter(AnyModelConfig).validate_python(wrong)


def test_the_union_is_published_by_name():
    schema = TypeAdapter(AnyModelConfig).json_schema(ref_template="#/{model}")
    names = [config.__name__ for config in registry.config_classes()]
    new, old = ([member["$ref"].removeprefix("#/") for member in version["oneOf"]] for version in schema["anyOf"])
    assert (len(names), names[-1], len(old)) == (128, "Unknown_Config", 29)
    assert new == names
    assert {"MainDiffusersConfig", "LoRALyCORISConfig", "VideoApiModelConfig"} <= set(old)
    main = schema["$defs"]["Main_Diffusers_SD1_Config"]
    assert set(main["required"]) == set(main["properties"])


def test_source_url_is_a_web_address_or_null():
    assert ModelRecordChanges(source_url="").source_url is None
    assert ModelRecordChanges(source_url="https://a.example/b").source_url == "https://a.example/b"
    with pytest.raises(ValidationError):
        ModelRecordChanges(source_url="javascript:alert(1)")


def test_the_cover_is_not_stored():
    config = registry.parse(RECORD | {"cover_image": "x"})
    assert isinstance(config, ModelConfig)
    assert "cover_image" not in _columns(config)["config"]


def test_the_models_package_and_family_specs_do_not_import_torch():
    code = (
        "import sys; import invokeclone.models.api; from invokeclone.models.identify import registry; registry.rules();"
        "print([m for m in ('torch', 'numpy', 'diffusers', 'transformers') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
