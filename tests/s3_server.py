"""An S3 service on a port of this machine (moto), with a bucket per test."""

import itertools
import logging
import os
from collections.abc import Iterator
from typing import Any

import pytest

from invokeclone.kit.config.settings import Settings

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
_numbers = itertools.count()


class S3Service:
    """The running service."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint

    def make_bucket(self) -> str:
        """Create a new bucket and return its name."""
        name = f"bucket-{os.getpid()}-{next(_numbers)}"
        self.backend.create_bucket(name, "us-east-1")
        return name

    @property
    def backend(self) -> Any:
        """Return moto's buckets."""
        from moto.s3.models import s3_backends

        return s3_backends["123456789012"]["aws"]

    def keys(self, bucket: str) -> set[str]:
        """Return the keys of all objects of a bucket."""
        return set(self.backend.buckets[bucket].keys)


@pytest.fixture(scope="session")
def s3_service() -> Iterator[S3Service]:
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
