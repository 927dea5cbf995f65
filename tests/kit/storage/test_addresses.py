"""Addresses, and what is said at the start when a storage cannot be used."""

import http.server
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from obstore.exceptions import BaseError

from invokeclone.kit.config.settings import Settings
from invokeclone.kit.files.storage_errors import to_storage_error
from invokeclone.kit.storage.addresses import PROBE, StorageNotUsable, check, local_storage, media_origin, open_storage
from invokeclone.kit.storage.local import LocalStorage
from invokeclone.kit.storage.s3 import _cause
from tests.s3_server import S3Service


def start(settings: Settings, address: str | None, **changes: str) -> None:
    """Open and check a storage as the start of a server does."""
    changed = settings.model_copy(update={"storage_url": address, **changes})
    check(changed, open_storage(changed))


@pytest.mark.parametrize(
    "address",
    ["", "images", "/images", "s3:/b", "s3://", "s3://b", "s3://UPPER", "s3://bucket/../x", "http://bucket", "file://",
     "file://host/x", "file:///", "file:///a/../b", "s3://bucket?x=1", "s3://bucket#x", "gs://bucket", "s3://bucket:80", "s3://[", "s3://bucket/a\nb"],
)  # fmt: skip
def test_other_addresses_are_refused(settings: Settings, address: str) -> None:
    with pytest.raises(StorageNotUsable, match="is not a storage address"):
        start(settings, address)


def test_credentials_in_addresses_are_refused_and_not_repeated(settings: Settings) -> None:
    for changes in (
        {"storage_url": "s3://key:secret@bucket"},
        {"storage_url": "s3:key:secret@bucket"},
        {"storage_url": "s3://bucket", "storage_endpoint": "http://key:secret@host"},
    ):
        with pytest.raises(StorageNotUsable) as caught:
            open_storage(settings.model_copy(update=changes))
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "endpoint",
    [
        "nonsense",
        "ftp://host",
        "http://",
        "http://host:0",
        "http://ho st",
        "http://[",
        "http://host:x",
        "http://a;b",
        "http://h?x=1",
    ],
)
@pytest.mark.parametrize("setting", ["storage_endpoint", "storage_public_endpoint", "AWS_ENDPOINT_URL"])
def test_other_endpoints_are_refused(
    settings: Settings, s3: S3Service, monkeypatch: pytest.MonkeyPatch, setting: str, endpoint: str
) -> None:
    changes = {} if setting.isupper() else {setting: endpoint}
    if setting.isupper():
        monkeypatch.setenv(setting, endpoint)
    with pytest.raises(StorageNotUsable, match="is not the address of an S3 service"):
        start(settings, "s3://bucket", **changes)


def test_a_folder_is_created_for_its_owner(settings: Settings, tmp_path: Path) -> None:
    start(settings, f"file://{tmp_path}/more%20images")
    assert (tmp_path / "more images").stat().st_mode & 0o777 == 0o700
    assert list((tmp_path / "more images").iterdir()) == []


def test_a_folder_that_is_a_file_is_refused(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        StorageNotUsable, match=r"file cannot be used: (File exists|Not a directory); check storage_url"
    ):
        start(settings, f"file://{tmp_path}/file")


def test_without_an_address_nothing_is_written_and_the_library_is_not_loaded(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.delitem(sys.modules, "invokeclone.kit.storage.s3", raising=False)
    start(settings, None)
    assert not settings.outputs_path.exists()
    with pytest.raises(StorageNotUsable, match=r"pip install 'invokeclone\[s3\]'"):
        start(settings, "s3://bucket")


def test_local_areas_have_their_folders(settings: Settings) -> None:
    storage = local_storage(settings)
    assert storage.local_path("style_presets/a.webp") == settings.style_presets_path / "a.webp"
    assert storage.local_path("workflow_thumbnails/a.webp") == settings.workflow_thumbnails_path / "a.webp"
    assert storage.local_path("images/x/a.png") == settings.outputs_path / "images" / "x" / "a.png"


def test_linked_folders_are_listed_once(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.png").touch()
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "loop").symlink_to(tmp_path / "images")
    assert [stat.key for stat in LocalStorage(tmp_path).list("images")] == ["images/linked/a.png"]


# A bucket


def test_a_usable_bucket_is_left_as_it_was(s3_settings: Settings, s3: S3Service, bucket: str) -> None:
    check(s3_settings, open_storage(s3_settings))
    assert s3.keys(bucket) == set()


def test_a_missing_bucket_is_reported(s3_settings: Settings) -> None:
    with pytest.raises(StorageNotUsable, match="storage s3://missing cannot be used: the bucket does not exist; check"):
        start(s3_settings, "s3://missing")


def test_a_service_that_does_not_respond_is_reported(s3_settings: Settings) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(
            StorageNotUsable, match=r"cannot be used: .*error sending request: Connection refused; check"
        ):
            start(s3_settings, "s3://bucket", storage_endpoint=endpoint)


def test_a_service_without_tls_is_reported(s3_settings: Settings, service: str) -> None:
    endpoint = service.replace("http://", "https://")
    with pytest.raises(
        StorageNotUsable, match="the service does not use TLS: write http:// instead of https://; check"
    ):
        start(s3_settings, "s3://bucket", storage_endpoint=endpoint)


@pytest.mark.parametrize(
    ("report", "cause"),
    [
        ("InvalidCertificate(\n    UnknownIssuer,\n)", "the certificate of the service is not trusted (UnknownIssuer); SSL"),
        ("InvalidCertificate(\n    NotValidForNameContext {", "the certificate of the service is for another host name"),
        ('"failed to lookup address information: Name or service not known"', "Name or service not known"),
        ("source: TimedOut", "no response in time"),
    ],
)  # fmt: skip
def test_the_cause_of_a_failed_connection_is_named(report: str, cause: str) -> None:
    """In the form of the library's report, which follows its first line."""
    report = f"error: {report}" if report.startswith('"') else report
    text = f"Generic S3 error: Error performing PUT http://h/b in 1s - HTTP error: x\n\nHttp(HttpError {{ {report} }})"
    assert f"HTTP error: x: {cause}" in _cause(BaseError(text))


class _Answers(http.server.BaseHTTPRequestHandler):
    """Answers of a service that refuses."""

    status, code = 403, "AccessDenied"
    methods: frozenset[str] = frozenset()
    content = b"probe"

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        is_refused = self.command in self.methods
        body = (
            f"<Error><Code>{self.code}</Code><Message>a reason</Message></Error>".encode()
            if is_refused
            else self.content
        )
        is_part = "range" in self.headers and not is_refused
        self.send_response(self.status if is_refused else 206 if is_part else 200)
        self.send_header("content-length", str(len(body)))
        if is_part:
            self.send_header("content-range", "bytes 0-4/5")
        for name, value in (("etag", '"x"'), ("last-modified", "Tue, 01 Dec 2026 07:00:00 GMT")):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _answer

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def refuse(monkeypatch: pytest.MonkeyPatch, status: int, code: str, *methods: str) -> None:
    monkeypatch.setattr(_Answers, "status", status)
    monkeypatch.setattr(_Answers, "code", code)
    monkeypatch.setattr(_Answers, "methods", frozenset(methods))


@pytest.mark.parametrize(
    "code", ["AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "RequestTimeTooSkewed"]
)
def test_refused_credentials_are_reported(
    s3_settings: Settings, service: str, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    refuse(monkeypatch, 403, code, "PUT")
    with pytest.raises(StorageNotUsable, match=f"storage s3://bucket/x cannot be used: {code}: a reason; check"):
        start(s3_settings, "s3://bucket/x", storage_endpoint=service)


def test_a_bucket_that_refuses_deletions_is_reported(
    s3_settings: Settings, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, 403, "AccessDenied", "POST")
    with pytest.raises(StorageNotUsable, match="does not let this server delete objects: AccessDenied: a reason"):
        start(s3_settings, "s3://bucket", storage_endpoint=service)


def test_a_bucket_that_cannot_be_listed_is_reported(
    s3_settings: Settings, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the service answers requests for missing objects as it answers those for other people's."""
    refuse(monkeypatch, 403, "AccessDenied", "HEAD")
    monkeypatch.setattr("invokeclone.kit.storage.s3.S3Storage.delete", lambda *_: {})
    with pytest.raises(StorageNotUsable, match=r"cannot be used: .*403 Forbidden.* list objects"):
        start(s3_settings, "s3://bucket", storage_endpoint=service)


def test_missing_credentials_are_reported(
    s3_settings: Settings, s3: S3Service, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service stands in for that of an instance's role, which has no credentials."""
    refuse(monkeypatch, 404, "None", "PUT", "GET")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", service)
    with pytest.raises(StorageNotUsable, match="cannot be used: no credentials in the environment, and "):
        start(s3_settings, "s3://bucket")


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (403, "AccessDenied", 507),
        (401, "Unauthorized", 507),
        (400, "ExpiredToken", 507),
        (403, "QuotaExceeded", 507),
        (400, "XMinioAdminBucketQuotaExceeded", 507),
        (507, "XMinioStorageFull", 507),
        (503, "SlowDown", 503),
        (500, "InternalError", 503),
        (404, "NoSuchBucket", 503),
        (409, "ConditionalRequestConflict", 503),
    ],
)
def test_errors_of_the_service_have_the_statuses_of_disk_errors(
    s3_settings: Settings, service: str, monkeypatch: pytest.MonkeyPatch, status: int, code: str, expected: int
) -> None:
    monkeypatch.setattr("invokeclone.kit.storage.s3.RETRIES", 0)
    refuse(monkeypatch, status, code, "GET", "PUT", "POST", "HEAD")
    storage = open_storage(s3_settings.model_copy(update={"storage_endpoint": service}))
    for use in (lambda: storage.write("images/a.png", b"x"), lambda: storage.get("images/a.png")):
        with pytest.raises(OSError) as caught:
            use()
        error = to_storage_error(caught.value)
        assert error is not None
        assert error.status == expected
    assert storage.delete(["images/a.png", "images/b.png"]).keys() == {"images/a.png", "images/b.png"}


@pytest.mark.parametrize("content", [b"probe", b"other"], ids=["keeps the first object", "replaces it"])
def test_a_service_that_ignores_conditions_is_refused(
    s3_settings: Settings, service: str, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    refuse(monkeypatch, 200, "")
    monkeypatch.setattr(_Answers, "content", content)
    monkeypatch.setattr("invokeclone.kit.storage.s3.S3Storage.delete", lambda *_: {})
    with pytest.raises(StorageNotUsable, match="ignores the condition If-None-Match"):
        start(s3_settings, "s3://bucket", storage_endpoint=service)


def test_an_object_that_a_repeated_request_finds_is_its_own(s3_settings: Settings) -> None:
    """The first request was carried out, but its response was lost."""
    storage = open_storage(s3_settings)
    storage.write("images/a.png", b"content")
    storage.write("images/a.png", b"content")
    with pytest.raises(FileExistsError):
        storage.write("images/a.png", b"CONTENT")


@pytest.mark.parametrize(
    ("changes", "origin"),
    [
        ({}, "https://*.amazonaws.com"),
        ({"storage_endpoint": "http://minio:9000/x"}, "http://minio:9000"),
        (
            {"storage_endpoint": "http://minio:9000", "storage_public_endpoint": "https://s3.example"},
            "https://s3.example",
        ),
        ({"storage_reads": "proxied"}, None),
        ({"storage_url": "file:///images"}, None),
        ({"storage_url": None}, None),
    ],
)
def test_the_origin_of_presigned_urls(
    settings: Settings, s3: S3Service, changes: dict[str, Any], origin: str | None
) -> None:
    base = {"storage_url": "s3://bucket", "storage_reads": "presigned"}
    assert media_origin(settings.model_copy(update=base | changes)) == origin


def test_the_probe_is_outside_of_the_areas() -> None:
    assert PROBE.startswith(".")
