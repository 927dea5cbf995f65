"""Where settings come from, what wins, and what a mistake says."""

import json
from pathlib import Path

import pytest
import yaml

from invokeclone.kit.config.settings import Settings
from invokeclone.kit.config.settings_file import FIELDS, SettingsError, example, load_settings

HERE = Path(__file__).parent
EXAMPLE = HERE.parent.parent / "configs" / "invokeai.example.yaml"


def write(root: Path, text: str) -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / "invokeai.yaml").write_text(text)


def test_all_contract_settings_exist_with_their_types_and_defaults() -> None:
    contract = json.loads((HERE / "settings_schema.json").read_text())
    properties = Settings.model_json_schema(ref_template="#/components/schemas/{model}")["properties"]
    assert len(contract) == 82
    for name, schema in contract.items():
        actual = {key: value for key, value in properties[name].items() if key != "description"}
        assert actual == schema, name
    assert set(properties) == set(contract)


def test_arguments_win_over_environment_over_file_over_default(tmp_path: Path) -> None:
    write(tmp_path, "port: 1001\nhost: 10.0.0.1\nlog_level: debug\n")
    environment = {"INVOKEAI_PORT": "1002", "INVOKEAI_HOST": "10.0.0.2", "OTHER": "x"}
    settings, unknown = load_settings(tmp_path, environment, port=1003, host=None)
    assert (settings.port, settings.host, settings.log_level, settings.max_queue_size) == (
        1003,
        "10.0.0.2",
        "debug",
        10000,
    )
    assert unknown == []


def test_lists_and_booleans_can_be_given_in_the_environment(tmp_path: Path) -> None:
    environment = {
        "INVOKEAI_ALLOW_ORIGINS": '["http://a", "http://b"]',
        "INVOKEAI_GENERATION_DEVICES": "[cuda:0, cpu]",
        "INVOKEAI_FORCE_TILED_DECODE": "true",
        "INVOKEAI_MAX_QUEUE_HISTORY": "null",
    }
    settings, _ = load_settings(tmp_path, environment)
    assert settings.allow_origins == ["http://a", "http://b"]
    assert settings.generation_devices == ["cuda:0", "cpu"]
    assert settings.force_tiled_decode is True
    assert settings.max_queue_history is None


def test_unknown_keys_get_one_line_each_and_are_ignored(tmp_path: Path) -> None:
    write(tmp_path, "prot: 1\ncolour: red\n")
    _, unknown = load_settings(tmp_path, {"INVOKEAI_NOPE": "1"})
    assert [line.rsplit("/", 1)[-1] for line in unknown] == [
        "invokeai.yaml: prot: no such setting, ignored",
        "invokeai.yaml: colour: no such setting, ignored",
        "INVOKEAI_NOPE: no such setting, ignored",
    ]


def test_changed_settings_without_an_effect_get_one_line_each(tmp_path: Path) -> None:
    write(tmp_path, "ram: 12\nvram: null\nlazy_offload: true\nmax_cache_ram_gb: 3\n")
    settings, lines = load_settings(tmp_path, {"INVOKEAI_DEV_RELOAD": "true"})
    assert settings.max_cache_ram_gb == 3
    assert [line.rsplit("/", 1)[-1] for line in lines] == [
        "invokeai.yaml: ram: has no effect. It is deprecated in InvokeAI too: set max_cache_ram_gb.",
        "INVOKEAI_DEV_RELOAD: has no effect. Restart the server instead, which takes 3 seconds.",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("port: many\n", "port: Input should be a valid integer"),
        ("precision: float8\n", "precision: Input should be 'auto', 'float16', 'bfloat16' or 'float32'"),
        ("max_queue_size: 0\n", "max_queue_size: Input should be greater than 0"),
        ("device: gpu\n", "device: String should match pattern"),
        ("generation_devices: [gpu]\n", "generation_devices: not a device: 'gpu'"),
        ("base_url: /api/x\n", "base_url: may not begin with 'api'"),
        ("http_compression_level: 11\n", "http_compression_level: Input should be less than or equal to 9"),
        ("ssl_certfile: x.pem\n", "set both ssl_certfile and ssl_keyfile"),
        ("events_url: redis://localhost\n", "set database_url too"),
        ("- a list\n", "must contain `name: value` lines"),
        ("port: [\n", "cannot be read"),
    ],
)
def test_a_wrong_value_gets_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path, text)
    with pytest.raises(SettingsError) as caught:
        load_settings(tmp_path, {})
    assert len(caught.value.lines) == 1
    assert message in caught.value.lines[0]
    assert "invokeai.yaml" in caught.value.lines[0]


def test_each_error_has_its_line_and_source(tmp_path: Path) -> None:
    write(tmp_path, "port: x\n")
    with pytest.raises(SettingsError) as caught:
        load_settings(tmp_path, {"INVOKEAI_RAM": "-1"}, log_level="loud")
    assert len(caught.value.lines) == 3
    assert any(line.startswith("INVOKEAI_RAM: ") for line in caught.value.lines)
    assert any(line.startswith("--log-level: ") for line in caught.value.lines)


def test_root_comes_from_the_argument_the_environment_or_home(tmp_path: Path) -> None:
    assert load_settings(tmp_path, {"INVOKEAI_ROOT": "/elsewhere"})[0].root == tmp_path
    assert load_settings(None, {"INVOKEAI_ROOT": str(tmp_path)})[0].root == tmp_path
    assert load_settings(None, {})[0].root == Path("~/invokeai").expanduser()


def test_paths_are_taken_from_the_root_unless_absolute(tmp_path: Path) -> None:
    settings = Settings(root=tmp_path, models_dir=Path("/models"), outputs_dir=Path("out"))
    assert settings.models_path == Path("/models")
    assert settings.outputs_path == tmp_path / "out"
    assert settings.database_path == tmp_path / "databases" / "invokeai.db"


@pytest.mark.parametrize(("given", "kept"), [("invoke", "/invoke"), ("/a/b/", "/a/b"), ("", None), ("/", None)])
def test_base_url_is_normalised(given: str, kept: str | None) -> None:
    assert Settings(base_url=given).base_url == kept


def test_settings_round_trip_to_a_worker(tmp_path: Path) -> None:
    settings = Settings(root=tmp_path, port=1, remote_api_tokens=[{"url_regex": "a.*", "token": "t"}])
    assert Settings(**json.loads(json.dumps(settings.to_worker()))) == settings


def test_example_file_is_up_to_date() -> None:
    assert EXAMPLE.read_text() == example(), "run `make docs`"


def test_example_lines_are_valid_when_uncommented(tmp_path: Path) -> None:
    lines = [
        line[2:] for line in example().splitlines() if line.startswith("# ") and not line.startswith("# All settings")
    ]
    values = yaml.safe_load("\n".join(line for line in lines if not line.startswith("Each can")))
    assert set(values) == set(FIELDS)
    write(tmp_path, yaml.safe_dump(values))
    settings, unknown = load_settings(tmp_path, {})
    assert settings == Settings(root=tmp_path)
    assert unknown == []
