"""CPU and time of this process per object of 400 kB: written, read, and its size asked, in a local folder and in S3.

The S3 service is moto in a process of its own, so its time is in the wall-clock figures only. Needs `.[dev]`.
"""

import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from invokeclone.kit.config.settings import Settings
from invokeclone.kit.storage.addresses import local_storage, open_storage
from invokeclone.kit.storage.protocol import ObjectStorage

SIZE = 400_000
ROUNDS = 300
BUCKET = "benchmark"
SERVICE = f"""
import sys
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
s3_backends["123456789012"]["aws"].create_bucket({BUCKET!r}, "us-east-1")
print("http://%s:%d" % server.get_host_and_port(), flush=True)
sys.stdin.read()
"""


@contextmanager
def running_service() -> Iterator[str]:
    """Run the service; yield its address."""
    os.environ.update(AWS_ACCESS_KEY_ID="key", AWS_SECRET_ACCESS_KEY="secret", AWS_REGION="us-east-1")
    with subprocess.Popen(
        [sys.executable, "-c", SERVICE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        if not select.select([process.stdout], [], [], 60)[0]:
            process.kill()
            raise SystemExit("the S3 service did not start within a minute")
        yield process.stdout.readline().decode().strip()
        process.stdin.close()


def measure(operation: Callable[[str], object]) -> tuple[float, float]:
    """Return CPU and time per call in ms, after a tenth of the calls as a warm-up."""
    keys = [f"images/{number}.png" for number in range(ROUNDS)]
    for key in keys[: ROUNDS // 10]:
        operation(key)
    cpu, start = time.process_time(), time.perf_counter()
    for key in keys[ROUNDS // 10 :]:
        operation(key)
    calls = ROUNDS - ROUNDS // 10
    return (time.process_time() - cpu) * 1e3 / calls, (time.perf_counter() - start) * 1e3 / calls


def main() -> None:
    content = os.urandom(SIZE)
    with tempfile.TemporaryDirectory() as folder, running_service() as endpoint:
        settings = Settings(root=Path(folder))
        bucket = settings.model_copy(update={"storage_url": f"s3://{BUCKET}", "storage_endpoint": endpoint})
        storages: dict[str, ObjectStorage] = {"local": local_storage(settings), "s3": open_storage(bucket)}
        print(f"{'':8}{'write':>18}{'read':>18}{'stat':>18}   ms of CPU, ms in all, per object of {SIZE // 1000} kB")
        for name, storage in storages.items():

            def write(key: str, storage: ObjectStorage = storage) -> None:
                storage.write(key, content)

            figures = [measure(operation) for operation in (write, storage.get, storage.stat)]
            print(f"{name:8}" + "".join(f"{cpu:9.2f}{wall:9.2f}" for cpu, wall in figures))
        presign = measure(lambda key: storages["s3"].presign(key, 300))
        print(f"{'presign':8}{presign[0]:9.2f}{presign[1]:9.2f}")


if __name__ == "__main__":
    main()
