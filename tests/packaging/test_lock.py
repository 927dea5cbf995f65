"""configs/lock.txt pins what pyproject.toml names, within the ranges that it allows."""

import importlib.util
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HERE = Path(__file__).parents[2]
PROJECT = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("write_lock", HERE / "scripts" / "write_lock.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("text", [*PROJECT["dependencies"], *EXTRAS["dev"]])
def test_a_dependency_is_pinned_within_its_range(script: ModuleType, text: str) -> None:
    requirement = Requirement(text)
    pins = {**script.pins(script.LOCK), **script.pins(script.CONSTRAINTS)}
    assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)])


def test_a_library_is_pinned_in_one_file(script: ModuleType) -> None:
    constraints = script.pins(script.CONSTRAINTS)
    assert set(constraints) == {"torch", "torchvision"}
    assert not set(constraints) & set(script.pins(script.LOCK))
    for text in EXTRAS["nodes"]:
        requirement = Requirement(text)
        if requirement.name in constraints:
            assert requirement.specifier.contains(constraints[requirement.name])


def test_torch_requirement_is_a_version_range() -> None:
    (torch,) = [Requirement(text) for text in PROJECT["dependencies"] if Requirement(text).name == "torch"]
    assert {specifier.operator for specifier in torch.specifier} == {">=", "<"}


def test_closure_includes_transitive_requirements_and_extras(script: ModuleType) -> None:
    plain, with_extra = script.closure(["sqlalchemy"]), script.closure(["sqlalchemy[asyncio]"])
    assert "typing-extensions" in plain
    assert with_extra.keys() >= plain.keys() | {"greenlet"}
    assert "pytest" not in script.closure(["sqlalchemy[asyncio]"])
    assert "+" not in "".join(script.closure(["torch"]).values())
