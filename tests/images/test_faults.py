"""An upload of which one operation fails, whichever it is: an answer with a sentence, nothing half-written, and the next works."""

import httpx
import pytest

from invokeclone.kit.resources import Resources
from tests.applications import encode_image, sample_image
from tests.faults import Faults, check_images


@pytest.mark.sqlite("makes operations of SQLite's driver fail")
async def test_each_operation_of_an_upload_may_fail(
    client: httpx.AsyncClient, resources: Resources, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = Faults(monkeypatch, resources.settings.root)
    board = (await client.post("/api/v1/boards/", params={"board_name": "b"})).json()["board_id"]

    async def upload() -> int:
        answer = await client.post(
            "/api/v1/images/upload",
            params={"image_category": "general", "is_intermediate": "false", "board_id": board},
            files={"file": ("x.png", encode_image(sample_image()), "image/png")},
        )
        assert answer.status_code == 201 or len(answer.json()["detail"]) > 20
        return answer.status_code

    await upload()  # makes the folders
    with faults.armed(0):
        assert await upload() == 201
    operations = faults.count
    assert operations >= 8
    refused = []
    for number in range(1, operations + 1):
        with faults.armed(number):
            status = await upload()
        assert faults.failed is not None
        # The note about unfinished files goes last, when the image has its record already.
        is_note = faults.failed.startswith("unlink") and "intents" in faults.failed
        assert status == (201 if is_note else 507), faults.failed
        refused.append(faults.failed)
        await check_images(resources)
    with faults.armed(0):
        assert await upload() == 201
    await check_images(resources)
    assert any("COMMIT" in what or "commit" in what for what in refused)
    assert any(what.startswith("fsync") for what in refused)
