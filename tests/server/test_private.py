"""A root after a start and some use: what other accounts of the machine may read of it."""

import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from invokeclone.kit.config.settings import Settings
from invokeclone.server.app import create_app
from tests.applications import encode_image, sample_image


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def rights(folder: Path) -> dict[str, int]:
    paths = [folder, *folder.rglob("*")]
    return {str(path.relative_to(folder.parent)): stat.S_IMODE(path.stat().st_mode) for path in paths}


async def test_new_root_has_private_permissions(settings: Settings, laid_out: None) -> None:
    (settings.root / "api_keys.yaml").write_text("external_openai_api_key: k\n")
    app = create_app(settings, worker_command=None)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client,
    ):
        query = "image_category=general&is_intermediate=false"
        files = {"file": ("a.png", encode_image(sample_image()), "image/png")}
        assert (await client.post(f"/api/v1/images/upload?{query}", files=files)).status_code == 201
        changed = await client.patch("/api/v1/app/runtime_config", json={"max_queue_history": 5})
        assert changed.status_code == 200
        modes = rights(settings.outputs_path)
    assert len([name for name in modes if name.endswith((".png", ".webp"))]) == 2
    assert set(modes.values()) == {0o600, 0o700}
    assert {name for name, mode in modes.items() if mode == 0o700} >= {"outputs", "outputs/images"}
    private_files = [settings.root / "invokeai.yaml", settings.root / "api_keys.yaml", settings.database_path]
    assert [stat.S_IMODE(path.stat().st_mode) for path in private_files] == [0o600] * 3
    for path in (settings.style_presets_path, settings.workflow_thumbnails_path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert stat.S_IMODE(settings.root.stat().st_mode) == 0o755  # models in it may be shared


async def test_existing_root_keeps_permissions_except_for_secret_files(
    settings: Settings, laid_out: None, logged: list[logging.LogRecord]
) -> None:
    """What others may share stays as it is; files with secrets do not."""
    settings.outputs_path.mkdir(parents=True, mode=0o755)
    keys = settings.root / "api_keys.yaml"
    keys.write_text("external_openai_api_key: k\n")
    keys.chmod(0o644)
    settings.database_path.chmod(0o644)
    app = create_app(settings, worker_command=None)
    async with app.router.lifespan_context(app):
        pass
    assert stat.S_IMODE(settings.outputs_path.stat().st_mode) == 0o755
    assert stat.S_IMODE(keys.stat().st_mode) == 0o600
    assert stat.S_IMODE(settings.database_path.stat().st_mode) == 0o600
    lines = [record.getMessage() for record in logged if "other accounts" in record.getMessage()]
    assert len(lines) == 2
