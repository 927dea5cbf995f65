"""ComfyUI's /api/jobs over queue items of every origin."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from PIL import Image
from sqlalchemy import text

from invokeclone.kit.sql.database import Database
from invokeclone.shims.comfyui import jobs
from invokeclone.users.current import SYSTEM
from tests.shims.comfyui import Comfy, frames_to_end, text_to_image
from tests.shims.conftest import png

QUEUE = "/api/v1/queue/default"
WORKFLOW_ID = 'a "flow" ü'


@pytest.fixture(autouse=True)
def empty_queue(http: httpx.Client) -> Iterator[None]:
    http.put(f"{QUEUE}/clear").raise_for_status()
    yield
    http.put(f"{QUEUE}/processor/resume").raise_for_status()
    http.put(f"{QUEUE}/clear").raise_for_status()


def small(seed: int = 1, **latent: Any) -> dict[str, Any]:
    workflow = text_to_image(seed=seed, width=64, height=64, **latent)
    workflow["3"]["inputs"]["steps"] = 2
    return workflow


def enqueue_prompt(http: httpx.Client, **request: Any) -> list[int]:
    body = {"prompt": "a circle", "width": 64, "height": 64, "steps": 2} | request
    answer = http.post(f"{QUEUE}/enqueue_prompt", json=body)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["item_ids"])


def listed(http: httpx.Client, **query: Any) -> list[dict[str, Any]]:
    answer = http.get("/api/jobs", params=query)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["jobs"])


def wait(http: httpx.Client, item_id: int) -> None:
    while http.get(f"{QUEUE}/i/{item_id}").json()["status"] not in ("completed", "failed", "canceled"):
        pass


def test_items_of_every_origin_are_jobs(http: httpx.Client) -> None:
    comfy = Comfy(http)
    with comfy.listening() as socket:
        extra = {"extra_pnginfo": {"workflow": {"id": WORKFLOW_ID}}}
        prompt_id = comfy.enqueue(small(batch_size=2), extra_data=extra)
        frames_to_end(socket, prompt_id)
    (item_id,) = enqueue_prompt(http)
    wait(http, item_id)
    http.put(f"{QUEUE}/processor/pause").raise_for_status()
    pending = comfy.enqueue(small())
    first, second, third = listed(http)
    assert (first["id"], first["status"], first["outputs_count"]) == (pending, "pending", 0)
    assert (second["id"], second["status"], second["outputs_count"]) == (str(item_id), "completed", 1)
    assert (third["id"], third["status"], third["outputs_count"]) == (prompt_id, "completed", 2)
    assert third["workflow_id"] == WORKFLOW_ID
    assert third["create_time"] <= third["execution_start_time"] <= third["execution_end_time"]
    assert third["preview_output"]["nodeId"] == "9"
    assert third["preview_output"]["mediaType"] == "images"
    for job in (second, third):
        image = {name: job["preview_output"][name] for name in ("filename", "subfolder", "type")}
        assert http.get("/view", params=image).status_code == 200
    assert [job["id"] for job in listed(http, workflow_id=WORKFLOW_ID)] == [prompt_id]
    assert listed(http, workflow_id="a flow") == []
    details = http.get(f"/comfyui/api/jobs/{prompt_id}").json()
    assert details["workflow"]["prompt"] == small(batch_size=2)
    assert details["outputs"] == comfy.history(prompt_id)[prompt_id]["outputs"]
    assert details["execution_status"]["status_str"] == "success"
    assert http.get(f"/api/jobs/{item_id}").json()["outputs_count"] == 1
    assert http.get(f"/api/jobs/{pending}").json()["workflow"]["prompt"] == small()
    for unknown in ("unknown", "0", "9" * 30, str(item_id) + "0000"):
        assert http.get(f"/api/jobs/{unknown}").status_code == 404


def test_jobs_are_filtered_sorted_and_paged(http: httpx.Client) -> None:
    http.put(f"{QUEUE}/processor/pause").raise_for_status()
    ids = [str(item_id) for item_id in sorted(enqueue_prompt(http, count=4))]
    http.put(f"{QUEUE}/i/{ids[1]}/cancel").raise_for_status()
    assert [job["id"] for job in listed(http)] == ids[::-1]
    assert [job["id"] for job in listed(http, sort_order="asc", limit=2)] == ids[:2]
    assert [job["id"] for job in listed(http, sort_by="execution_duration", sort_order="asc")] == ids
    assert [job["id"] for job in listed(http, status="Cancelled")] == [ids[1]]
    assert [job["id"] for job in listed(http, status="pending, cancelled")] == ids[::-1]
    assert listed(http, status="failed,completed,in_progress") == []
    page = http.get("/api/jobs", params={"limit": 3, "offset": 1, "sort_order": "asc"}).json()
    assert [job["id"] for job in page["jobs"]] == ids[1:]
    assert page["pagination"] == {"offset": 1, "limit": 3, "total": 4, "has_more": False}
    page = http.get("/api/jobs", params={"limit": 3}).json()["pagination"]
    assert page == {"offset": 0, "limit": 3, "total": 4, "has_more": True}
    assert http.get("/api/jobs", params={"offset": 10**20}).json()["jobs"] == []


@pytest.mark.parametrize(
    "query", [{"status": "done"}, {"sort_by": "x"}, {"sort_order": "up"}, {"limit": 0}, {"limit": "x"}, {"offset": "x"}]
)
def test_invalid_queries_are_refused(http: httpx.Client, query: dict[str, Any]) -> None:
    answer = http.get("/api/jobs", params=query)
    assert answer.status_code == 400
    assert answer.json()["error"]["details"] == next(iter(query))


def test_jobs_are_canceled(http: httpx.Client) -> None:
    http.put(f"{QUEUE}/processor/pause").raise_for_status()
    comfy = Comfy(http)
    prompt_ids = [comfy.enqueue(small(seed)) for seed in range(3)]
    (item_id,) = enqueue_prompt(http)
    assert http.post(f"/api/jobs/{prompt_ids[0]}/cancel").json() == {"cancelled": True}
    assert http.post(f"/api/jobs/{prompt_ids[0]}/cancel").json() == {"cancelled": False}
    ids = [prompt_ids[1], str(item_id), "unknown"]
    assert http.post("/api/jobs/cancel", json={"job_ids": ids}).json() == {"cancelled": True}
    assert http.post("/api/jobs/cancel", json={"job_ids": ids}).json() == {"cancelled": False}
    assert [job["id"] for job in listed(http, status="pending")] == [prompt_ids[2]]
    assert len(listed(http, status="cancelled")) == 3
    for no_id in ("9" * 19, "1" * 5000, "-1", "1.5"):
        assert http.get(f"/api/jobs/{no_id}").status_code == 404
        assert http.post("/api/jobs/cancel", json={"job_ids": [no_id]}).json() == {"cancelled": False}
    for wrong in ({}, {"job_ids": "x"}, {"job_ids": [1]}):
        assert http.post("/api/jobs/cancel", json=wrong).status_code == 400


def test_a_failed_job_has_its_error_and_a_retry_is_another_job(http: httpx.Client) -> None:
    http.put(f"{QUEUE}/processor/pause").raise_for_status()
    comfy = Comfy(http)
    query = {"image_category": "user", "is_intermediate": True}
    file = {"file": ("a.png", png(Image.new("RGB", (8, 8))), "image/png")}
    name = http.post("/api/v1/images/upload", params=query, files=file).json()["image_name"]
    workflow = {
        "1": {"class_type": "LoadImage", "inputs": {"image": name}},
        "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": ""}},
    }
    prompt_id = comfy.enqueue(workflow)
    http.delete(f"/api/v1/images/i/{name}").raise_for_status()
    http.put(f"{QUEUE}/processor/resume").raise_for_status()
    while not (failed := listed(http, status="failed")):
        pass
    (job,) = failed
    assert job["id"] == prompt_id
    assert (job["execution_error"]["node_id"], job["execution_error"]["node_type"]) == ("1", "LoadImage")
    http.put(f"{QUEUE}/processor/pause").raise_for_status()
    http.put(f"{QUEUE}/retry_items_by_id", json=[job["priority"]]).raise_for_status()
    retried, original = listed(http)
    assert original["id"] == prompt_id
    assert retried["id"] == str(retried["priority"])
    assert http.get(f"/api/jobs/{retried['id']}").json()["status"] == "pending"


@pytest.mark.sqlite("reads SQLite's plan of a query")
@pytest.mark.parametrize("newest_first", [True, False])
async def test_pages_are_read_from_an_index(database: Database, newest_first: bool) -> None:
    """No page sorts all items of the queue."""
    query = jobs.JobQuery(list(jobs.STATUSES), newest_first=newest_first)
    statement = jobs.page_query(SYSTEM, query).compile(compile_kwargs={"literal_binds": True})
    async with database.read() as connection:
        plan = [row.detail for row in await connection.execute(text(f"EXPLAIN QUERY PLAN {statement}"))]
    assert any("ix_session_queue_created" in line for line in plan), plan
    assert not any("TEMP B-TREE FOR ORDER BY" in line for line in plan), plan
