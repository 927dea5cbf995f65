"""Stable Diffusion 3 and CogView4 in the official web UI, on a server without FLUX.1's encoders, which the UI would select."""

from pathlib import Path

import pytest

from tests import tiny_flux_files as files
from tests.official_ui.conftest import UI, in_both_versions
from tests.official_ui.runs import HEIGHT, WIDTH, choose_model, invoke, set_size_and_steps
from tests.server_process import Server

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]


@in_both_versions
@pytest.mark.parametrize("family", ["sd3", "cogview4"])
async def test_other_transformers_make_images_from_a_prompt(
    family: str, server: Server, ui: UI, tmp_path: Path
) -> None:
    name = f"Tiny {family}"
    files.write_pipeline(tmp_path / name, family)
    library = files.Library(server, tmp_path)
    library.install(name)
    await choose_model(ui, name)
    await set_size_and_steps(ui)
    run = await invoke(ui, "a red fox")
    assert run.nodes.keys() >= {f"{family}_model_loader", f"{family}_text_encoder", f"{family}_denoise"}
    assert run.metadata["generation_mode"] == f"{family}_txt2img"
    assert (run.image["width"], run.image["height"]) == (WIDTH, HEIGHT)
    library.remove()
