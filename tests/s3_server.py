"""An S3 service on a port of this machine (moto), with a bucket per test.

With EXISTING in the environment, and the variables AWS_… for it, the buckets are on a service that runs already.
"""

import itertools
import logging
import os
from collections.abc import Iterator
from typing import Any

import pytest

from invokeclone.kit.config.settings import Settings

EXISTING = "INVOKECLONE_TEST_S3"
"""Address of an S3 service to use instead, http://HOST:PORT; its credentials may create and delete buckets."""

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
if os.environ.get(EXISTING):
    CREDENTIALS |= {name: value for name, value in os.environ.items() if name in CREDENTIALS}
_numbers = itertools.count()


class S3Service:
    """The running service."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint

    def make_bucket(self) -> str:
        """Create a new bucket and return its name."""
        name = f"bucket-{os.getpid()}-{next(_numbers)}"
        self._create(name)
        return name

    def _create(self, bucket: str) -> None:
        self._backend.create_bucket(bucket, "us-east-1")

    @property
    def _backend(self) -> Any:
        """Return moto's buckets."""
        from moto.s3.models import s3_backends

        return s3_backends["123456789012"]["aws"]

    def keys(self, bucket: str) -> set[str]:
        """Return the keys of all objects of a bucket."""
        return set(self._backend.buckets[bucket].keys)


class ExistingService(S3Service):
    """A service that runs already, reached through boto3."""

    def __init__(self, endpoint: str) -> None:
        import boto3  # type: ignore[import-untyped]

        super().__init__(endpoint)
        self._client: Any = boto3.client(
            "s3",
            endpoint_url=endpoint,
            aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
            region_name=CREDENTIALS["AWS_REGION"],
        )
        self._created: list[str] = []

    def _create(self, bucket: str) -> None:
        self._client.create_bucket(Bucket=bucket)
        self._created.append(bucket)

    def keys(self, bucket: str) -> set[str]:
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return {entry["Key"] for page in pages for entry in page.get("Contents", ())}

    def delete_buckets(self) -> None:
        """Delete the buckets that were made, with their objects."""
        for bucket in self._created:
            for key in self.keys(bucket):
                self._client.delete_object(Bucket=bucket, Key=key)
            self._client.delete_bucket(Bucket=bucket)


@pytest.fixture(scope="session")
def s3_service() -> Iterator[S3Service]:
    if endpoint := os.environ.get(EXISTING):
        existing = ExistingService(endpoint)
        yield existing
        existing.delete_buckets()
        return
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield S3Service(f"http://{host}:{port}")
    server.stop()


@pytest.fixture
def s3(s3_service: S3Service, monkeypatch: pytest.MonkeyPatch) -> S3Service:
    """Lend the service, with credentials for it in the environment."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    return s3_service


@pytest.fixture
def bucket(s3: S3Service) -> str:
    """Return the name of a new bucket."""
    return s3.make_bucket()


@pytest.fixture
def s3_settings(settings: Settings, s3: S3Service, bucket: str) -> Settings:
    """Return settings that store images in a new bucket."""
    return settings.model_copy(update={"storage_url": f"s3://{bucket}/some/root", "storage_endpoint": s3.endpoint})
