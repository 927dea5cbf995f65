"""Downloads from a local web server: results, faults during the transfer, and the events about them."""

import asyncio
import hashlib
import random
import threading
import time
from pathlib import Path

import hypothesis
import pytest
from pydantic import AnyHttpUrl

from invokeclone.downloads import names, partial_file, transfer
from invokeclone.downloads.errors import UnknownDownload
from invokeclone.downloads.queue import DownloadQueue, DownloadRequest
from tests.fake_downloads import done, until

DATA = random.Random(7).randbytes(300_000)
SHA = hashlib.sha256(DATA).hexdigest()


def left(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "files"


@pytest.fixture
def fetch(downloads, fake_web, folder):
    def start(path="/a/model.safetensors", **options):
        paused = options.pop("held", False)
        return downloads.add(DownloadRequest(AnyHttpUrl(fake_web.url + path), folder, **options), paused=paused)

    return start


async def test_a_download_completes_under_its_file_name(fake_web, fetch, folder, events):
    fake_web.page("/a/model.safetensors", DATA)
    job = await done(fetch())
    assert (job.status, job.error) == ("completed", None)
    assert job.download_path == folder / "model.safetensors"
    assert job.download_path.read_bytes() == DATA
    assert left(folder) == ["model.safetensors"]
    assert (job.bytes, job.total_bytes, job.etag) == (len(DATA), len(DATA), '"one"')
    assert job.job_started <= job.job_ended
    assert events.names()[0] == "download_started"
    assert events.names()[-1] == "download_complete"
    complete = events.sent[-1].model_dump(mode="json")
    assert complete | {"timestamp": 0} == {
        "timestamp": 0,
        "source": str(job.source),
        "download_path": str(job.download_path),
        "total_bytes": len(DATA),
    }


async def test_file_names_follow_headers_and_stay_in_the_folder(fake_web, fetch, folder):
    names = {
        "/1": ('attachment; filename="good.safetensors"', "good.safetensors"),
        "/2": ('attachment; filename="../../evil.safetensors"', "evil.safetensors"),
        "/3": ("attachment; filename*=UTF-8''%2e%2e%2f%C3%A9.bin", "é.bin"),
        "/4": ('attachment; filename="/etc/passwd"', "passwd"),
        "/5": ('attachment; filename=".."', "download"),
        "/6": ('attachment; filename="a\\\\b\\\\c.bin"', "c.bin"),
        "/7": (f'attachment; filename="{"x" * 500}.safetensors"', "x" * 168 + ".safetensors"),
        "/x/%2e%2e%2fup.bin": (None, "up.bin"),
    }
    for path, (header, expected) in names.items():
        fake_web.page(path, b"x", headers={"Content-Disposition": header} if header else {})
        job = await done(fetch(path))
        assert (job.error, job.download_path) == (None, folder / expected), path
        assert job.download_path.is_file()


@pytest.mark.parametrize(
    "marks", [{}, {"etag": None, "last_modified": "Sat, 21 Nov 2026 10:00:00 GMT"}, {"etag": 'W/"w"'}]
)
async def test_a_lost_connection_is_resumed_with_a_range(fake_web, fetch, marks):
    fake_web.page("/a/model.safetensors", DATA, breaks=[100_000, 50_000], **marks)
    job = await done(fetch())
    assert (job.status, job.download_path.read_bytes() == DATA, job.resume_from_scratch) == ("completed", True, False)
    ranges = [headers.get("Range") for headers in fake_web.asked_for("/a/model.safetensors")]
    assert ranges == [None, "bytes=100000-", "bytes=150000-"]


async def test_without_etag_a_download_resumes_only_with_a_checksum(fake_web, fetch):
    for sha256, expected in ((None, [None, None]), (SHA, [None, "bytes=100000-"])):
        fake_web.page("/a/model.safetensors", DATA, etag=None, breaks=[100_000])
        fake_web.asked.clear()
        job = await done(fetch(sha256=sha256))
        assert job.status == "completed"
        assert [headers.get("Range") for headers in fake_web.asked_for("/a/model.safetensors")] == expected
        job.download_path.unlink()


async def test_a_changed_file_restarts_from_the_beginning(fake_web, fetch):
    page = fake_web.page("/a/model.safetensors", DATA, breaks=[50_000])
    page.hold_after = 50_000
    job = fetch()
    await until(lambda: job.bytes == 50_000)
    page.data, page.etag = DATA[::-1], '"two"'  # the answer under way is of the old state still
    page.go.set()
    page.hold_after = None
    await done(job)
    assert (job.status, job.resume_from_scratch) == ("completed", True)
    assert "restarted from the beginning" in job.resume_message
    assert job.download_path.read_bytes() == DATA[::-1]


async def test_without_range_support_the_whole_file_is_requested_again(fake_web, fetch):
    fake_web.page("/a/model.safetensors", DATA, ranges=False, breaks=[100_000])
    job = await done(fetch())
    assert (job.status, job.resume_from_scratch) == ("completed", True)
    assert job.download_path.read_bytes() == DATA


async def test_a_mismatched_content_range_is_not_appended(fake_web, fetch):
    """A 206 whose Content-Range isn't what was asked for is not appended."""
    page = fake_web.page("/a/model.safetensors", DATA, breaks=[100_000])
    page.headers["Content-Range"] = "bytes 7-299999/300000"
    job = fetch()
    await until(lambda: len(fake_web.asked) > 2)
    page.headers.clear()
    assert (await done(job)).download_path.read_bytes() == DATA


async def test_transient_errors_are_retried_and_permanent_ones_fail(fake_web, fetch, events, folder):
    fake_web.page("/a/model.safetensors", DATA, statuses=[503, 500, 429])
    assert (await done(fetch())).status == "completed"
    fake_web.page("/down", DATA, statuses=[503] * 50)
    job = await done(fetch("/down"))
    assert (job.status, job.error_type) == ("error", "DownloadFailed")
    assert "given up after 6 tries" in job.error
    assert len(fake_web.asked_for("/down")) == transfer.MAX_TRIES
    job = await done(fetch("/nowhere"))
    assert (job.status, len(fake_web.asked_for("/nowhere"))) == ("error", 1)
    assert "404" in job.error
    assert events.sent[-1].model_dump(mode="json") | {"timestamp": 0} == {
        "timestamp": 0,
        "source": str(job.source),
        "error_type": "DownloadFailed",
        "error": job.error,
    }
    assert left(folder) == ["model.safetensors"]


async def test_retry_after_is_honored(fake_web, fetch):
    fake_web.page("/a/model.safetensors", DATA, statuses=[429], headers={"Retry-After": "1"})
    job = fetch()
    await until(lambda: fake_web.asked)
    begun = asyncio.get_running_loop().time()
    await done(job)
    assert job.status == "completed"
    assert asyncio.get_running_loop().time() - begun > 0.9


async def test_a_checksum_mismatch_fails(fake_web, fetch, folder):
    fake_web.page("/a/model.safetensors", DATA)
    job = await done(fetch(sha256="0" * 64))
    assert (job.status, job.error_type, left(folder)) == ("error", "ChecksumMismatch", [])


async def test_the_checksum_sent_by_hugging_face_is_verified(fake_web, fetch, folder):
    """Its redirect to the storage carries it."""
    fake_web.page("/storage", DATA)
    for name, checksum, expected in (("good", SHA, None), ("bad", "0" * 64, "ChecksumMismatch"), ("odd", "x", None)):
        fake_web.redirect(f"/{name}", "/storage")
        fake_web.pages[f"/{name}"].headers["X-Linked-ETag"] = f'"{checksum}"'
        job = await done(fetch(f"/{name}", file=folder / name))
        assert job.error_type == expected
    assert left(folder) == ["good", "odd"]


async def test_a_resumed_file_with_a_bad_checksum_is_fetched_again(fake_web, fetch, folder):
    """The same ETag with other bytes behind it: the checksum tells."""
    fake_web.page("/a/model.safetensors", DATA)
    folder.mkdir()
    half = partial_file.PartialFile(folder / "model.safetensors")
    half.open(partial_file.SourceState(f"{fake_web.url}/a/model.safetensors", etag='"one"'), 0)
    half.write(b"\0" * 100_000)
    half.close()
    job = await done(fetch(sha256=SHA))
    assert (job.status, job.download_path.read_bytes() == DATA) == ("completed", True)
    assert "failed verification" in job.resume_message


async def test_a_size_mismatch_fails(fake_web, fetch, folder):
    fake_web.page("/a/model.safetensors", DATA)
    job = await done(fetch(size=7))
    assert (job.error_type, left(folder)) == ("ChecksumMismatch", [])
    fake_web.page("/chunked", DATA, headers={"Content-Length": ""})
    job = await done(fetch("/chunked", size=7))
    assert (job.error_type, left(folder)) == ("ChecksumMismatch", [])
    assert (await done(fetch("/chunked"))).bytes == len(DATA)


async def test_web_pages_are_refused_as_models(fake_web, fetch, folder):
    fake_web.page("/said", b"<p>log in</p>", headers={"Content-Type": "text/html; charset=utf-8"})
    fake_web.page("/hidden", b"\n<!DOCTYPE html><p>log in</p>")
    for path in ("/said", "/hidden"):
        job = await done(fetch(path))
        assert (job.status, job.error_type) == ("error", "NotAModelFile")
        assert "is a web page" in job.error
    assert [name for name in left(folder) if not name.endswith((".part", ".json"))] == []


async def test_insufficient_disk_space_fails(fake_web, fetch, folder, monkeypatch):
    monkeypatch.setattr(partial_file, "MIN_FREE_BYTES", 2**70)
    fake_web.page("/a/model.safetensors", DATA)
    job = await done(fetch())
    assert (job.error_type, left(folder)) == ("DiskFull", [])


async def test_a_write_error_fails_the_download(fake_web, fetch, monkeypatch):
    def full(_self, _data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(partial_file.PartialFile, "write", full)
    fake_web.page("/a/model.safetensors", DATA)
    job = await done(fetch())
    assert (job.status, job.error_type) == ("error", "OSError")


async def test_existing_files_are_not_overwritten(fake_web, fetch, folder):
    fake_web.page("/a/model.safetensors", DATA)
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"mine")
    job = await done(fetch())
    assert (job.error_type, (folder / "model.safetensors").read_bytes()) == ("DestinationTaken", b"mine")


async def test_concurrent_downloads_do_not_share_a_file(fake_web, fetch):
    page = fake_web.page("/a/model.safetensors", DATA, hold_after=10)
    first = fetch()
    await until(lambda: first.download_path)
    second = await done(fetch())
    page.go.set()
    assert (second.error_type, (await done(first)).status) == ("DestinationTaken", "completed")


async def test_cancel_while_running_leaves_no_files(fake_web, fetch, downloads, folder, events):
    fake_web.page("/a/model.safetensors", DATA, hold_after=100_000)
    job = fetch()
    await until(lambda: job.bytes == 100_000)
    downloads.cancel(job.id)
    assert job.status == "cancelled"
    await downloads.wait_until_stopped([job.id])
    assert left(folder) == []
    assert events.names()[-1] == "download_cancelled"
    downloads.cancel(job.id)
    downloads.resume(job.id)
    downloads.pause(job.id)
    await downloads.restart(job.id)
    assert (job.status, events.names().count("download_cancelled")) == ("cancelled", 1)


async def test_pause_and_resume(fake_web, fetch, downloads, folder, events):
    page = fake_web.page("/a/model.safetensors", DATA, hold_after=100_000)
    job = fetch()
    await until(lambda: job.bytes == 100_000)
    downloads.pause(job.id)
    assert (job.status, events.names()[-1]) == ("paused", "download_paused")
    page.hold_after = None
    downloads.resume(job.id)
    await done(job)
    assert (job.status, job.download_path.read_bytes() == DATA) == ("completed", True)
    assert fake_web.asked_for("/a/model.safetensors")[-1]["Range"] == "bytes=100000-"
    downloads.pause(job.id)
    assert job.status == "completed"


async def test_cancel_paused_job_and_resume_job_added_paused(fake_web, fetch, downloads, folder):
    fake_web.page("/a/model.safetensors", DATA, hold_after=100_000)
    job = fetch()
    await until(lambda: job.bytes == 100_000)
    downloads.pause(job.id)
    await downloads.wait_until_stopped([job.id])
    assert left(folder) == ["model.safetensors.part", "model.safetensors.part.json"]
    downloads.cancel(job.id)
    await downloads.wait_until_stopped([job.id])
    assert left(folder) == []
    fake_web.page("/b", DATA)
    paused_job = fetch("/b", held=True)
    await asyncio.sleep(0.02)
    assert (paused_job.status, fake_web.asked_for("/b")) == ("paused", [])
    downloads.resume(paused_job.id)
    assert (await done(paused_job)).status == "completed"


async def test_restart_begins_from_scratch(fake_web, fetch, downloads, folder):
    page = fake_web.page("/a/model.safetensors", DATA, hold_after=100_000)
    job = fetch()
    await until(lambda: job.bytes == 100_000)
    page.hold_after = None
    await downloads.restart(job.id)
    await done(job)
    assert [headers.get("Range") for headers in fake_web.asked_for("/a/model.safetensors")] == [None, None]
    failed = await done(fetch("/late"))
    fake_web.page("/late", DATA)
    downloads.resume(failed.id)
    assert (await done(failed)).error is None
    assert failed.status == "completed"


async def test_a_stopped_queue_keeps_partial_files_for_the_next(settings, events, fake_web, folder):
    page = fake_web.page("/a/model.safetensors", DATA, hold_after=100_000)
    first = DownloadQueue(settings, events)
    request = DownloadRequest(AnyHttpUrl(fake_web.url + "/a/model.safetensors"), folder)
    job = first.add(request)
    await until(lambda: job.bytes == 100_000)
    await first.stop()
    assert job.status == "waiting"
    assert set(events.names()) <= {"download_started", "download_progress"}
    page.hold_after = None
    second = DownloadQueue(settings, events)
    again = await done(second.add(request))
    await second.stop()
    assert (again.status, again.download_path.read_bytes() == DATA) == ("completed", True)
    assert fake_web.asked_for("/a/model.safetensors")[-1]["Range"] == "bytes=100000-"


async def test_a_complete_partial_file_is_renamed_without_a_request(fake_web, fetch, folder):
    folder.mkdir()
    whole = partial_file.PartialFile(folder / "model.safetensors")
    url = f"{fake_web.url}/a/model.safetensors"
    whole.open(partial_file.SourceState(url, etag='"one"', total=len(DATA)), 0)
    whole.write(DATA)
    whole.close()
    job = await done(fetch(file=folder / "model.safetensors"))
    assert (job.status, job.download_path.read_bytes() == DATA, fake_web.asked) == ("completed", True, [])


async def test_jobs_run_by_priority_within_the_concurrency_limit(settings, events, fake_web, folder):
    queue = DownloadQueue(settings, events, max_concurrent=2)
    pages = [fake_web.page(f"/{n}", b"x" * 10, hold_after=5) for n in range(5)]
    priorities = [10, 10, 10, 1, 5]
    jobs = [
        queue.add(DownloadRequest(AnyHttpUrl(f"{fake_web.url}/{n}"), folder, priority=p))
        for n, p in enumerate(priorities)
    ]
    await until(lambda: len(fake_web.asked) == 2)
    assert [job.status for job in jobs] == ["running", "running", "waiting", "waiting", "waiting"]
    for page in pages:
        page.go.set()
    for job in jobs:
        await done(job)
    assert [path for path, _ in fake_web.asked] in (
        ["/0", "/1", "/3", "/4", "/2"],
        ["/1", "/0", "/3", "/4", "/2"],
    )
    await queue.stop()


async def test_progress_events_are_throttled(fake_web, fetch, events):
    fake_web.page("/a/model.safetensors", DATA)
    await done(fetch())
    assert events.names().count("download_progress") <= 2
    progress = next(event for event in events.sent if event.name == "download_progress").model_dump()
    assert progress["total_bytes"] == len(DATA)
    assert 0 < progress["current_bytes"] <= len(DATA)


async def test_jobs_are_kept_until_pruned(fake_web, fetch, downloads):
    fake_web.page("/a/model.safetensors", DATA)
    job = await done(fetch())
    paused_job = fetch("/held", held=True)
    assert downloads.jobs() == [job, paused_job]
    assert downloads.get(job.id) is job
    downloads.prune()
    assert downloads.jobs() == [paused_job]
    for act in (downloads.get, downloads.cancel, downloads.pause, downloads.resume):
        with pytest.raises(UnknownDownload):
            act(job.id)


async def test_tokens_are_sent_but_not_exposed(fake_web, fetch):
    fake_web.page("/a/model.safetensors", DATA, token="secret")
    job = await done(fetch())
    assert (job.error_type, "access token" in job.error) == ("AccessDenied", True)
    job = await done(fetch(token="secret"))
    assert job.status == "completed"
    assert "secret" not in job.model_dump_json()
    assert (await done(fetch(token="sec\r\nX: y"))).error_type == "AccessDenied"


async def test_rapid_state_changes(fake_web, fetch, downloads, folder):
    """Cancelled before its work began, paused and resumed at once: no slot is lost, no file is worked on twice."""
    fake_web.page("/a/model.safetensors", DATA)
    jobs = [fetch() for _ in range(3)]
    for job in jobs:
        downloads.cancel(job.id)
    await downloads.wait_until_stopped([job.id for job in jobs])
    await asyncio.sleep(0.02)
    assert (fake_web.asked, left(folder)) == ([], [])
    job = fetch()
    for _ in range(5):
        downloads.pause(job.id)
        downloads.resume(job.id)
    await done(job)
    assert (job.status, job.error, len(fake_web.asked)) == ("completed", None, 1)
    burst = [fetch(f"/{number}") for number in range(8)]
    for number in range(8):
        fake_web.page(f"/{number}", DATA)
    assert [(await done(other)).status for other in burst] == ["completed"] * 8


async def test_pause_resume_and_cancel_while_writing(fake_web, fetch, downloads, folder, monkeypatch):
    """The thread that writes is waited for, however often the job is changed meanwhile."""
    begun, slow = threading.Event(), threading.Event()
    writing = partial_file.PartialFile.write

    def slowly(self, data):
        begun.set()
        slow.wait(30)
        writing(self, data)

    monkeypatch.setattr(partial_file.PartialFile, "write", slowly)
    fake_web.page("/a/model.safetensors", DATA)
    job = fetch()
    await until(begun.is_set)
    for _ in range(3):
        downloads.pause(job.id)
        await asyncio.sleep(0.01)
        downloads.resume(job.id)
        await asyncio.sleep(0.01)
    downloads.cancel(job.id)
    await asyncio.sleep(0.05)
    assert left(folder)
    slow.set()
    await downloads.wait_until_stopped([job.id])
    assert (job.status, left(folder)) == ("cancelled", [])


async def test_pause_at_the_moment_of_completion(fake_web, fetch, downloads, monkeypatch):
    finish = partial_file.PartialFile.finish
    job = None

    def finish_and_pause(self):
        finish(self)
        loop.call_soon_threadsafe(downloads.pause, job.id)
        time.sleep(0.05)

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(partial_file.PartialFile, "finish", finish_and_pause)
    fake_web.page("/a/model.safetensors", DATA)
    job = fetch()
    await until(lambda: job.status in {"paused", "completed"})
    assert (await done(job)).status == "completed"


async def test_cancel_at_the_moment_of_completion(fake_web, fetch, downloads, folder, monkeypatch):
    finish = partial_file.PartialFile.finish
    loop = asyncio.get_running_loop()

    def finish_and_cancel(self):
        finish(self)
        loop.call_soon_threadsafe(downloads.cancel, job.id)
        time.sleep(0.05)

    monkeypatch.setattr(partial_file.PartialFile, "finish", finish_and_cancel)
    fake_web.page("/a/model.safetensors", DATA)
    job = fetch()
    await until(lambda: job.ended)
    await downloads.wait_until_stopped([job.id])
    assert (job.status, left(folder)) == ("cancelled", [])


async def test_unusable_responses_are_retried_up_to_a_limit(fake_web, fetch):
    fake_web.page("/a/model.safetensors", statuses=[206] * 100)
    job = await done(fetch())
    assert (job.status, "unusable responses" in job.error) == ("error", True)
    assert len(fake_web.asked) == transfer.MAX_TRIES


@hypothesis.given(hypothesis.strategies.text())
def test_safe_name_of_any_text_is_a_plain_file_name(text):
    name = names.safe_name(text)
    assert name
    assert name == Path(name).name
    assert not name.startswith(".")
    assert not any(ord(letter) < 32 or letter in '<>:"/\\|?*' for letter in name)
    assert len(name.encode()) <= names.MAX_BYTES
