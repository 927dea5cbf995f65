"""Folders of tiny models, written once per run."""

from pathlib import Path
from typing import Any

import pytest

from tests import tiny_transformers


@pytest.fixture(scope="session")
def sd3_parts(sd1_parts: dict[str, Any]) -> dict[str, Any]:
    return tiny_transformers.make_sd3_parts(sd1_parts["tokenizer"])


@pytest.fixture(scope="session")
def sd3_folder(tmp_path_factory: pytest.TempPathFactory, sd3_parts: dict[str, Any]) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny sd3"
    return tiny_transformers.save_pipeline(folder, "StableDiffusion3Pipeline", sd3_parts)


@pytest.fixture(scope="session")
def cogview4_parts(sd1_parts: dict[str, Any]) -> dict[str, Any]:
    """Return the parts; the fixture of Stable Diffusion's parts sets the number of threads."""
    return tiny_transformers.make_cogview4_parts()


@pytest.fixture(scope="session")
def cogview4_folder(tmp_path_factory: pytest.TempPathFactory, cogview4_parts: dict[str, Any]) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny cogview4"
    return tiny_transformers.save_pipeline(folder, "CogView4Pipeline", cogview4_parts)


@pytest.fixture(scope="session")
def z_image_parts(sd1_parts: dict[str, Any]) -> dict[str, Any]:
    """Return the parts; the fixture of Stable Diffusion's parts sets the number of threads."""
    return tiny_transformers.make_z_image_parts()


@pytest.fixture(scope="session")
def z_image_folder(tmp_path_factory: pytest.TempPathFactory, z_image_parts: dict[str, Any]) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny z-image"
    return tiny_transformers.save_pipeline(folder, "ZImagePipeline", z_image_parts)


@pytest.fixture(scope="session")
def flux2_parts(sd1_parts: dict[str, Any]) -> dict[str, Any]:
    """Return the parts; the fixture of Stable Diffusion's parts sets the number of threads."""
    return tiny_transformers.make_flux2_parts()


@pytest.fixture(scope="session")
def flux2_folder(tmp_path_factory: pytest.TempPathFactory, flux2_parts: dict[str, Any]) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny flux2"
    return tiny_transformers.save_pipeline(folder, "Flux2KleinPipeline", flux2_parts)


@pytest.fixture(scope="session")
def flux2_dev_parts(sd1_parts: dict[str, Any]) -> dict[str, Any]:
    """Return the parts; the fixture of Stable Diffusion's parts sets the number of threads."""
    return tiny_transformers.make_flux2_dev_parts()


@pytest.fixture(scope="session")
def flux2_dev_folder(tmp_path_factory: pytest.TempPathFactory, flux2_dev_parts: dict[str, Any]) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny flux2 dev"
    return tiny_transformers.save_pipeline(folder, "Flux2Pipeline", flux2_dev_parts)
