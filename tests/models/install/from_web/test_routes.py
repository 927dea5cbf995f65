"""The routes of downloads, of installations from the web and of Hugging Face."""

import asyncio
import stat

import pytest

from invokeclone.downloads.queue import DownloadQueue
from invokeclone.downloads.web import WebClient
from invokeclone.kit.config.settings import Settings
from invokeclone.models.install.sources.hub import TOKEN_FILE, Hub, is_repository
from invokeclone.users.current import User, current_user
from tests.fake_downloads import until

QUEUE = "/api/v1/download_queue"
MODELS = "/api/v2/models"


async def wait_for_end(client, number):
    while (job := (await client.get(f"{QUEUE}/i/{number}")).json())["status"] in {"waiting", "running"}:
        await asyncio.sleep(0.005)
    return job


async def test_queue_a_download(client, resources, fake_web):
    fake_web.page("/a.bin", b"data", token="t")
    body = {"source": f"{fake_web.url}/a.bin", "dest": "new/folder/b.bin", "access_token": "t"}
    answer = await client.post(f"{QUEUE}/i/", json=body)
    assert answer.status_code == 200
    job = await wait_for_end(client, answer.json()["id"])
    file = resources.settings.download_cache_path / "new/folder/b.bin"
    assert file.read_bytes() == b"data"
    assert job == {
        "id": 0,
        "dest": str(file),
        "download_path": str(file),
        "status": "completed",
        "bytes": 4,
        "total_bytes": 4,
        "error_type": None,
        "error": None,
        "source": f"{fake_web.url}/a.bin",
        "access_token": None,
        "priority": 10,
        "job_started": job["job_started"],
        "job_ended": job["job_ended"],
        "content_type": "application/octet-stream",
        "canonical_url": f"{fake_web.url}/a.bin",
        "etag": '"one"',
        "last_modified": None,
        "final_url": f"{fake_web.url}/a.bin",
        "expected_total_bytes": None,
        "resume_required": False,
        "resume_message": None,
        "resume_from_scratch": False,
    }
    assert (await client.get(f"{QUEUE}/")).json() == [job]
    assert (await client.delete(f"{QUEUE}/i/0")).status_code == 204
    assert (await client.get(f"{QUEUE}/i/0")).json()["status"] == "completed"
    assert (await client.patch(f"{QUEUE}/")).status_code == 204
    assert (await client.get(f"{QUEUE}/")).json() == []
    assert (await client.get(f"{QUEUE}/i/0")).status_code == 404
    assert (await client.delete(f"{QUEUE}/i/0")).status_code == 404


async def test_cancel_one_and_all(client, fake_web, downloads):
    for name in "abc":
        fake_web.page(f"/{name}", b"data", hold_after=1)
        await client.post(f"{QUEUE}/i/", json={"source": f"{fake_web.url}/{name}", "dest": "x/"})
    assert (await client.delete(f"{QUEUE}/i/1")).status_code == 204
    assert [job["status"] for job in (await client.get(f"{QUEUE}/")).json()] == ["running", "cancelled", "running"]
    assert (await client.delete(f"{QUEUE}/i")).status_code == 204
    assert {job["status"] for job in (await client.get(f"{QUEUE}/")).json()} == {"cancelled"}


@pytest.mark.parametrize(
    "dest",
    ["/etc/x", "../../x", "../../../outside", "x/../../../y", "", "a\0b", "{models}/../x", "{models}/model_images/x",
     "{models}/.hidden/x", "{models}/tmpinstall_1_a/x", "{models}/key/more.bin", "{models}/key/", "link/x",
     "bad\nname"],
)  # fmt: skip
async def test_forbidden_destinations_are_refused(client, resources, fake_web, make, installer, dest, tmp_path):
    """The reference writes wherever it is told to."""
    models, cache = resources.settings.models_path, resources.settings.download_cache_path
    cache.mkdir(parents=True)
    (cache / "link").symlink_to(tmp_path)
    checkpoint = make.checkpoint()
    from invokeclone.models.records.schemas import ModelRecordChanges

    job = await installer.add(str(checkpoint), ModelRecordChanges(key="key"))
    await until(lambda: job.ended)
    fake_web.page("/a.bin", b"data")
    body = {"source": f"{fake_web.url}/a.bin", "dest": dest.format(models=models)}
    answer = await client.post(f"{QUEUE}/i/", json=body)
    assert answer.status_code == (422 if "\0" in dest else 400), answer.text
    assert (await client.get(f"{QUEUE}/")).json() == []


async def test_allowed_destinations(client, resources, fake_web):
    models = resources.settings.models_path
    models.mkdir(parents=True)
    (models / "taken.bin").write_bytes(b"mine")
    fake_web.page("/a.bin", b"data")
    source = f"{fake_web.url}/a.bin"
    assert (await client.post(f"{QUEUE}/i/", json={"source": source, "dest": f"{models}/taken.bin"})).status_code == 409
    for dest, expected in ((f"{models}/my folder/x.bin", "my folder/x.bin"), (f"{models}", "a.bin")):
        number = (await client.post(f"{QUEUE}/i/", json={"source": source, "dest": dest})).json()["id"]
        assert (await wait_for_end(client, number))["error"] is None
        assert (models / expected).read_bytes() == b"data"


async def test_invalid_download_requests(client):
    for body in ({}, {"source": "ftp://a/b", "dest": "x"}, {"source": "http://a/b"}, {"source": "no", "dest": "x"}):
        assert (await client.post(f"{QUEUE}/i/", json=body)).status_code == 422
    assert (await client.get(f"{QUEUE}/i/7")).status_code == 404


async def test_private_addresses_are_refused(client, resources, fake_web, settings):
    """The job says so: as everything else that goes wrong with a download."""
    client._transport.app.services.get(DownloadQueue).web = WebClient(Settings(root=settings.root))
    fake_web.page("/a.bin", b"data")
    job = (await client.post(f"{QUEUE}/i/", json={"source": f"{fake_web.url}/a.bin", "dest": "x"})).json()
    job = await wait_for_end(client, job["id"])
    assert (job["status"], job["error_type"], fake_web.asked) == ("error", "AddressRefused", [])


async def test_routes_require_an_admin(client, app):
    app.dependency_overrides[current_user] = lambda: User(user_id="u")
    refused = [
        await client.get(f"{QUEUE}/"),
        await client.patch(f"{QUEUE}/"),
        await client.post(f"{QUEUE}/i/", json={"source": "http://a/b", "dest": "x"}),
        await client.get(f"{QUEUE}/i/0"),
        await client.delete(f"{QUEUE}/i/0"),
        await client.delete(f"{QUEUE}/i"),
        await client.get(f"{MODELS}/hugging_face", params={"hugging_face_repo": "a/b"}),
        await client.get(f"{MODELS}/install/huggingface", params={"source": "a/b"}),
        await client.get(f"{MODELS}/hf_login"),
        await client.post(f"{MODELS}/hf_login", json={"token": "t"}),
        await client.delete(f"{MODELS}/hf_login"),
        await client.post(f"{MODELS}/install", params={"source": "a/b"}, json={}),
        await client.delete(f"{MODELS}/install"),
        await client.post(f"{MODELS}/install/0/restart_failed"),
    ]
    assert [answer.status_code for answer in refused] == [403] * len(refused)


async def test_an_installation_over_the_routes(client, fake_web, make):
    page = fake_web.page("/m.safetensors", make.checkpoint().read_bytes(), hold_after=100)
    source = f"{fake_web.url}/m.safetensors"
    answer = await client.post(f"{MODELS}/install", params={"source": source, "access_token": "secret"}, json={})
    assert (answer.status_code, "secret" in answer.text) == (201, False)
    url = f"{MODELS}/install/{answer.json()['id']}"

    async def state():
        return (await client.get(url)).json()["status"]

    while (await client.get(url)).json()["bytes"] != 100:
        await asyncio.sleep(0.005)
    assert await state() == "downloading"
    assert (await client.post(f"{url}/pause")).json()["status"] == "paused"
    assert (await client.post(f"{url}/restart_file", json="http://a/b")).status_code == 404
    page.hold_after = None
    answer = await client.post(f"{url}/resume")
    assert (answer.status_code, answer.json()["status"] != "paused") == (201, True)
    while await state() != "completed":
        await asyncio.sleep(0.005)
    final = (await client.get(url)).json()
    assert [part["status"] for part in final["download_parts"]] == ["completed"]
    for act in ("pause", "resume", "restart_failed"):
        answer = await client.post(f"{url}/{act}")
        assert (answer.status_code, answer.json()) == (201, final)
    assert (await client.post(f"{url}/restart_file", json=source)).json() == final
    answer = await client.delete(url)
    assert (answer.status_code, answer.json()) == (201, None)
    assert (await client.get(url)).json() == final
    assert (await client.post(f"{MODELS}/install", params={"source": "nonsense"}, json={})).status_code == 409


async def test_files_of_a_running_installation_are_not_orphans(client, fake_web, make):
    fake_web.page("/m.safetensors", make.checkpoint().read_bytes(), hold_after=100)
    await client.post(f"{MODELS}/install", params={"source": f"{fake_web.url}/m.safetensors"}, json={})
    while (await client.get(f"{MODELS}/install/0")).json()["bytes"] != 100:
        await asyncio.sleep(0.005)
    assert (await client.get(f"{MODELS}/sync/orphaned")).json() == []


async def test_list_repository_contents(client, fake_hub, fake_web):
    fake_hub.repository(
        "o/folders", {"model_index.json": b"{}", "unet/model.safetensors": b"x", "one.safetensors": b"x"}
    )
    fake_hub.repository("o/files", {"a.safetensors": b"x", "deep/b.ckpt": b"x", "notes.txt": b"x"})
    fake_hub.repository("o/none", {"notes.txt": b"x"})

    async def ask(name):
        return (await client.get(f"{MODELS}/hugging_face", params={"hugging_face_repo": name})).json()

    url = f"{fake_web.url}/o"
    assert await ask("o/folders") == {"urls": [f"{url}/folders/resolve/c0ffee/one.safetensors"], "is_diffusers": True}
    assert await ask("o/files") == {
        "urls": [f"{url}/files/resolve/c0ffee/a.safetensors", f"{url}/files/resolve/c0ffee/deep/b.ckpt"],
        "is_diffusers": False,
    }
    assert await ask("o/none") == {"urls": None, "is_diffusers": False}


async def test_an_unreadable_repository_is_a_400(client, fake_hub, fake_web, downloads):
    """The reference answers 500 to most of these."""
    fake_hub.repository("o/closed", {"model.safetensors": b"x"}, token="t")
    fake_web.page("/api/models/o/odd?blobs=true", b"[1]")
    fake_web.page("/api/models/o/page?blobs=true", b"<html>")
    fake_web.page("/api/models/o/down?blobs=true", b"", statuses=[503] * 9)
    for name in ("o/closed", "o/none", "o/odd", "o/page", "o/down", "no repository", "../x", "", "a/b/c"):
        answer = await client.get(f"{MODELS}/hugging_face", params={"hugging_face_repo": name})
        assert (answer.status_code, bool(answer.json()["detail"])) == (400, True), name
    assert (await client.get(f"{MODELS}/hugging_face")).status_code == 400


async def test_without_a_connection_a_repository_is_a_400_and_a_login_unknown(client, installer):
    installer.hub.endpoint = "http://127.0.0.1:9"
    answer = await client.get(f"{MODELS}/hugging_face", params={"hugging_face_repo": "o/n"})
    assert (answer.status_code, "no connection" in answer.json()["detail"]) == (400, True)
    assert (await client.post(f"{MODELS}/hf_login", json={"token": "t"})).json() == "unknown"
    assert not (installer.hub._file).exists()


async def test_installing_by_a_link(client, fake_hub, make, installer):
    fake_hub.repository("o/n", {"model.safetensors": make.checkpoint().read_bytes()})
    url = f"{MODELS}/install/huggingface"
    answer = await client.get(url, params={"source": "o/n"})
    assert (answer.status_code, answer.headers["content-type"]) == (201, "text/html; charset=utf-8")
    assert "o/n is being installed" in answer.text
    await until(lambda: installer.jobs()[0].ended)
    assert installer.jobs()[0].error is None
    answer = await client.get(url, params={"source": "o/n"})
    assert (answer.status_code, "installed already" in answer.text) == (409, True)
    answer = await client.get(url, params={"source": "<script>alert(1)</script>"})
    assert (answer.status_code, "<script>" in answer.text) == (400, False)
    assert (await client.get(url, params={"source": "https://a.example/x"})).status_code == 400
    assert (await client.get(url)).status_code == 422


async def test_cross_site_requests_cannot_install(client, fake_hub, installer):
    """As a picture or a frame; a link that is followed says `navigate` and `document`, or asks for secure requests over http."""
    url, query = f"{MODELS}/install/huggingface", {"source": "o/n"}
    for mode, dest, status in (("no-cors", "image", 400), ("navigate", "iframe", 400), ("navigate", "document", 201)):
        headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": dest}
        assert (await client.get(url, params=query, headers=headers)).status_code == status
    browser = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64)"}
    assert (await client.get(url, params=query, headers=browser)).status_code == 400
    assert len(installer.jobs()) == 1
    followed = {**browser, "Upgrade-Insecure-Requests": "1"}
    assert (await client.get(url, params=query, headers=followed)).status_code in (201, 409)


async def test_login(client, fake_hub, fake_web, settings):
    fake_web.page("/api/whoami-v2", b'{"name": "me"}', token="hf_good")
    url = f"{MODELS}/hf_login"
    assert (await client.get(url)).json() == "invalid"
    assert fake_web.asked == []
    for bad in ("hf_bad", "", "a\nb", "é"):
        assert (await client.post(url, json={"token": bad})).json() == "invalid"
    assert (await client.post(url, json={})).status_code == 422
    file = settings.root / TOKEN_FILE
    assert not file.exists()
    assert (await client.post(url, json={"token": " hf_good "})).json() == "valid"
    assert (file.read_text(), stat.S_IMODE(file.stat().st_mode)) == ("hf_good", 0o600)
    assert (await client.get(url)).json() == "valid"
    fake_web.pages["/api/whoami-v2"].statuses = [500]
    assert (await client.get(url)).json() == "unknown"
    assert (await client.delete(url)).json() == "invalid"
    assert not file.exists()


def test_token_precedence(settings, tmp_path):
    """The login here, then the environment's, then Hugging Face's own file."""
    library = tmp_path / "hf" / "token"
    library.parent.mkdir()
    library.write_text("library\n")
    settings.root.mkdir()
    environment = {"HF_HOME": str(tmp_path / "hf")}
    web = WebClient(settings)
    assert Hub(settings, web, environment).token() == "library"
    assert Hub(settings, web, environment | {"HF_TOKEN": "environment"}).token() == "environment"
    assert Hub(settings, web, environment | {"HUGGING_FACE_HUB_TOKEN": "older"}).token() == "older"
    assert Hub(settings, web, {"XDG_CACHE_HOME": str(tmp_path / "cache")}).token() is None
    (tmp_path / "cache/huggingface").mkdir(parents=True)
    (tmp_path / "cache/huggingface/token").write_text("cached\n")
    assert Hub(settings, web, {"XDG_CACHE_HOME": str(tmp_path / "cache")}).token() == "cached"
    (settings.root / TOKEN_FILE).write_text("here")
    assert Hub(settings, web, environment | {"HF_TOKEN": "environment"}).token() == "here"
    assert Hub(settings, web, {}).endpoint == "https://huggingface.co"
    (settings.root / TOKEN_FILE).unlink()
    assert Hub(settings, web, {"HF_TOKEN_PATH": str(tmp_path / "none")}).token() is None


@pytest.mark.parametrize("dest", ["x" * 5000, "x" * 300, "a/" * 3000 + "x"], ids=["long", "over a name", "deep"])
async def test_an_invalid_destination_path_is_refused(client, dest):
    answer = await client.post(f"{QUEUE}/i/", json={"source": "https://example.com/model.safetensors", "dest": dest})
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.json()["detail"]


@pytest.mark.parametrize(
    ("name", "valid"),
    [
        *((name, True) for name in ("owner/name", "owner/n.a-m_e", "o/" + "n" * 96)),
        *((name, False) for name in ("name", "o/n/x", "../x", "o/a..b", "o/n.git", "o/n\n", "o/n\0", "ö/n", "")),
        ("o/" + "n" * 97, False),
    ],
)
async def test_names_of_repositories(name, valid):
    assert await is_repository(name) is valid
