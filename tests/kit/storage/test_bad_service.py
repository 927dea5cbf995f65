"""An S3 service that answers wrongly, slowly or not at all: the right result or one clear error, and nothing half-written."""

import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from invokeclone.kit.config.settings import Settings
from invokeclone.kit.files.storage_errors import StorageUnreachable, to_storage_error
from invokeclone.kit.storage import s3
from invokeclone.kit.storage.addresses import open_storage
from invokeclone.kit.storage.copies import CopyProgress, copy_all
from invokeclone.kit.storage.local import LocalStorage
from invokeclone.kit.storage.protocol import ObjectPart, ObjectStorage, StoredFile
from tests import faulty_s3
from tests.faulty_s3 import Fault, FaultyService
from tests.s3_server import S3Service

KEY, OTHER = "images/ä & <b> +%25.png", "images/other.png"
CONTENT = os.urandom(50_000)


@pytest.fixture
def service(s3: S3Service) -> Iterator[FaultyService]:
    with faulty_s3.serve(s3.endpoint) as served:
        yield served


@pytest.fixture
def storage(
    request: pytest.FixtureRequest, s3_settings: Settings, service: FaultyService, monkeypatch: pytest.MonkeyPatch
) -> ObjectStorage:
    monkeypatch.setattr(s3, "RETRIES", 1)
    monkeypatch.setattr(s3, "RETRY_S", 2)
    monkeypatch.setattr(s3, "REQUEST_TIMEOUT_S", 0.5 if "slow" in request.node.name else 10)
    opened = open_storage(s3_settings.model_copy(update={"storage_endpoint": service.endpoint}))
    opened.write(KEY, CONTENT)
    return opened


def read_in_pieces(storage: ObjectStorage) -> bytes:
    return b"".join(storage.chunks(KEY, 20_000))


READS: dict[str, tuple[Callable[[ObjectStorage], Any], Any]] = {
    "get": (lambda storage: storage.get(KEY), CONTENT),
    "pieces": (read_in_pieces, CONTENT),
    "range": (lambda storage: storage.get_range(KEY, 10, 90), ObjectPart(CONTENT[10:90], len(CONTENT))),
    "stat": (lambda storage: storage.stat(KEY).size, len(CONTENT)),
    "list": (lambda storage: [stat.key for stat in storage.list("images")], [KEY]),
}
CHANGES: dict[str, Callable[[ObjectStorage], Any]] = {
    "create": lambda storage: storage.write(OTHER, CONTENT),
    "replace": lambda storage: storage.write(KEY, CONTENT[::-1], replace=True),
    "copy": lambda storage: storage.copy(KEY, OTHER),
    "delete": lambda storage: storage.delete([KEY, OTHER]),
}
FAULTS: dict[str, tuple[Fault, int]] = {
    "slow": (faulty_s3.slow, 503),
    "slow down": (faulty_s3.error(503, "SlowDown"), 503),
    "internal error": (faulty_s3.error(500, "InternalError"), 503),
    "forbidden": (faulty_s3.error(403, "AccessDenied"), 507),
    "reset": (faulty_s3.reset, 503),
    "truncated": (faulty_s3.truncated, 503),
    "lost": (faulty_s3.lost, 503),
    "garbage": (faulty_s3.garbage, 503),
    "short": (faulty_s3.short, 503),
    "empty": (faulty_s3.empty, 503),
    "wrong ETag": (faulty_s3.wrong_etag, 503),
}


def attempt(work: Callable[[], Any], status: int) -> tuple[bool, Any]:
    """Return whether `work` succeeded, and its result; an error must have one response, with this status."""
    try:
        return True, work()
    except OSError as error:
        check_response(error, status)
        return False, None


def check_response(error: OSError, status: int) -> None:
    converted = to_storage_error(error)
    assert converted is not None, repr(error)
    assert converted.status == status, repr(error)


@pytest.mark.parametrize("fault", [name for name in FAULTS if name != "slow"])
def test_reads_are_right_or_an_error(storage: ObjectStorage, service: FaultyService, fault: str) -> None:
    change, status = FAULTS[fault]
    for name, (read, expected) in READS.items():
        with service.failing(change):
            succeeded, result = attempt(functools.partial(read, storage), status)
        if fault != "garbage" or name not in ("stat", "list"):  # which look like those of another, empty bucket
            assert not succeeded or result == expected, name
        assert read(storage) == expected, name


@pytest.mark.slow
def test_reads_from_a_slow_service_are_right_or_an_error(storage: ObjectStorage, service: FaultyService) -> None:
    test_reads_are_right_or_an_error(storage, service, "slow")


@pytest.mark.slow
@pytest.mark.parametrize("fault", [name for name in FAULTS if name not in ("slow", "garbage")])
def test_reads_survive_one_fault(storage: ObjectStorage, service: FaultyService, fault: str) -> None:
    """A single failure on the way is made up for, except what looks like a decision of the service."""
    for name, (read, expected) in READS.items():
        with service.failing(FAULTS[fault][0], times=1):
            succeeded, result = attempt(functools.partial(read, storage), FAULTS[fault][1])
        assert result == expected if succeeded else fault in {"forbidden", "short", "empty", "truncated", "reset"}, name


@pytest.mark.slow
@pytest.mark.parametrize("runs", [True, False], ids=["run", "not run"])
@pytest.mark.parametrize("fault", FAULTS)
def test_changes_are_complete_or_an_error(
    storage: ObjectStorage, service: FaultyService, fault: str, *, runs: bool
) -> None:
    """An object has one of its two contents, and success is never reported for what did not happen."""
    change, status = FAULTS[fault]
    for name, work in CHANGES.items():
        before = {stat.key: storage.get(stat.key) for stat in storage.list("images")}
        with service.failing(change, runs=runs):
            succeeded, failed = attempt(functools.partial(work, storage), status)
        after = {stat.key: storage.get(stat.key) for stat in storage.list("images")}
        for reason in (failed or {}).values():
            check_response(reason, status)
        if not runs and fault not in ("short", "empty", "truncated", "reset", "lost", "slow", "wrong ETag", "garbage"):
            assert not succeeded or failed, (name, "is reported as done")
            assert after == before, name
        for key, content in after.items():
            assert content in (CONTENT, CONTENT[::-1]), (name, key)
        storage.delete([OTHER])
        storage.write(KEY, CONTENT, replace=True)


SUCCESS_WITH_ERROR = b"<Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>"


def error_in_a_success(answer: faulty_s3.Answer) -> None:
    """Send what S3 does when a copy fails after it has begun to answer."""
    answer.status, answer.headers, answer.body = 200, {"Content-Type": "application/xml"}, SUCCESS_WITH_ERROR


def test_a_copy_that_fails_after_the_status_is_an_error(storage: ObjectStorage, service: FaultyService) -> None:
    """Else the move of an image would delete its only copy."""
    with service.failing(error_in_a_success, runs=False, method="PUT"), pytest.raises(OSError) as raised:
        storage.copy(KEY, OTHER)
    check_response(raised.value, 503)
    assert not StoredFile(storage, OTHER).exists()


def test_keys_that_could_not_be_deleted_are_reported(storage: ObjectStorage, service: FaultyService) -> None:
    def refuse(answer: faulty_s3.Answer) -> None:
        answer.status, answer.body = 200, (
            b'<DeleteResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Error><Key>some/root/images/other.png</Key>'
            b"<Code>AccessDenied</Code><Message>Access Denied</Message></Error></DeleteResult>"
        )  # fmt: skip
        answer.headers = {"Content-Type": "application/xml"}

    with service.failing(refuse, runs=False, method="POST"):
        failed = storage.delete([KEY, OTHER])
    assert OTHER in failed
    assert storage.get(KEY) == CONTENT


def test_a_lost_response_of_a_write_is_made_up_for(storage: ObjectStorage, service: FaultyService) -> None:
    with service.failing(faulty_s3.lost, times=1, method="PUT"):
        storage.write(OTHER, CONTENT)
    assert storage.get(OTHER) == CONTENT
    with service.failing(faulty_s3.lost, times=1, method="PUT"), pytest.raises(FileExistsError):
        storage.write(OTHER, b"different")
    assert storage.get(OTHER) == CONTENT


@pytest.mark.parametrize("fault", ["slow down", "lost", "forbidden"])
def test_an_upload_in_parts_is_complete_or_an_error(
    storage: ObjectStorage, service: FaultyService, tmp_path: Path, fault: str
) -> None:
    change, status = FAULTS[fault]
    path, content = tmp_path / "v.mp4", os.urandom(9 * 1024 * 1024)
    path.write_bytes(content)
    with service.failing(change, method="PUT", path="v.mp4"):
        succeeded, _ = attempt(lambda: storage.write_file("videos/v.mp4", path), status)
    assert not succeeded
    assert path.read_bytes() == content, "the only copy stays"
    assert list(storage.list("videos")) == []
    storage.write_file("videos/v.mp4", path)
    with service.failing(change, method="GET", path="v.mp4"):
        succeeded, _ = attempt(lambda: StoredFile(storage, "videos/v.mp4").fetch(tmp_path / "copy"), status)
    assert not succeeded
    assert not (tmp_path / "copy").exists()
    StoredFile(storage, "videos/v.mp4").fetch(tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == content


@pytest.mark.slow
def test_lists_and_deletions_of_thousands_of_objects(
    storage: ObjectStorage, service: FaultyService, s3: S3Service, bucket: str
) -> None:
    backend: Any = s3._backend
    names = [f"images/{number:04}/\u00e4\U0001f600 &'{number}.png" for number in range(2300)]
    for name in names:
        backend.put_object(bucket, f"some/root/{name}", b"x")
    expected = sorted([KEY, *names])
    assert sorted(stat.key for stat in storage.list("images")) == expected
    later_pages = {"method": "GET", "path": "continuation-token"}
    with service.failing(faulty_s3.error(503, "SlowDown"), times=1, **later_pages):  # type: ignore[arg-type]
        assert sorted(stat.key for stat in storage.list("images")) == expected
    for fault in ("slow down", "truncated", "reset", "empty"):
        with service.failing(FAULTS[fault][0], **later_pages):  # type: ignore[arg-type]
            succeeded, _ = attempt(lambda: list(storage.list("images")), 503)
        assert not succeeded, (fault, "a list without its end is no list")
    with service.failing(FAULTS["forbidden"][0], runs=False, method="POST", times=1):
        failed = storage.delete(names)
    assert 0 < len(failed) < len(names)
    assert sorted(stat.key for stat in storage.list("images")) == sorted([KEY, *failed])
    assert storage.delete(failed) == {}
    assert [stat.key for stat in storage.list("images")] == [KEY]


def test_copies_with_sums_that_are_wrong_are_compared_by_content(
    storage: ObjectStorage, service: FaultyService, tmp_path: Path
) -> None:
    backup = LocalStorage(tmp_path / "backup")
    with service.failing(faulty_s3.wrong_etag):
        assert copy_all(storage, backup) == CopyProgress(copied=1, copied_bytes=len(CONTENT))
        assert copy_all(storage, backup) == CopyProgress(equal=1)
    assert backup.get(KEY) == CONTENT
    storage.delete([KEY])
    with service.failing(faulty_s3.short, method="GET", path="images/"):
        copy_all(backup, storage)
    assert storage.get(KEY) == CONTENT


def test_a_service_that_refuses_the_rest_of_an_object_is_an_error(
    storage: ObjectStorage, service: FaultyService
) -> None:
    """Status 416 for a range below the size that HEAD reports gives no part, for ever."""
    with service.failing(faulty_s3.error(416, "InvalidRange"), method="GET"), pytest.raises(StorageUnreachable):
        read_in_pieces(storage)
