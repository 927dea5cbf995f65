"""Build the wheel, install it outside the checkout, and use it: migrate, publish, serve, generate an image.

For the interpreter that runs this (.venv's) the wheel gets its own environment, which sees .venv's libraries but not
its editable installation; there the server generates an image with the embedded model. For each other supported Python
on this machine the wheel gets its dependencies from the index, without torch and what needs it: there everything but
models must work, and the log and the item must say what is missing. Those environments are kept in .cache/check_wheel
and recreated when the dependencies change.
"""

import argparse
import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator, Sequence
from importlib.metadata import requires
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HERE = Path(__file__).resolve().parents[1]
CACHE = HERE / ".cache" / "check_wheel"
VERSIONS = ("3.11", "3.12", "3.13")
CONSTRAINTS = ("--constraint", str(HERE / "constraints.txt"), "--constraint", str(HERE / "configs" / "lock.txt"))
PATIENCE_S = 180
STARTED = time.monotonic()
PNG = b"\x89PNG\r\n\x1a\n"


class CheckError(Exception):
    """The wheel failed a check."""


def report(text: str) -> None:
    print(f"[wheel {time.monotonic() - STARTED:5.1f} s] {text}", flush=True)


def environment(folder: Path) -> dict[str, str]:
    """Return this process's environment variables without those that refer to the checkout or a user's settings."""
    foreign = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    checkout = {
        name: value for name, value in os.environ.items() if name not in foreign and not name.startswith("INVOKEAI_")
    }
    return {**checkout, "HOME": str(folder), "HF_HUB_OFFLINE": "1", "INVOKEAI_DEVICE": "cpu"}


def run(command: Sequence[str | Path], folder: Path, *, fails: bool = False) -> str:
    """Run a command in `folder`, outside the checkout, and return its output.

    Raises CheckError unless it exits as expected.
    """
    ran = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        check=False,
    )
    if (ran.returncode != 0) is not fails:
        raise CheckError(
            f"{' '.join(map(str, command))} ended with {ran.returncode}\n{ran.stdout[-2000:]}\n{ran.stderr[-4000:]}"
        )
    return ran.stderr if fails else ran.stdout


def pip(python: Path, *arguments: str | Path, quiet: bool = True) -> bool:
    """Run this interpreter's pip for another environment; return whether it succeeded."""
    options = ["--quiet"] * quiet
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *options, "--python", python, *arguments]
    ran = subprocess.run([str(word) for word in command], check=False, capture_output=True, text=True)
    if ran.returncode:
        print(ran.stdout[-1500:], ran.stderr[-3000:], sep="\n", flush=True)
    return ran.returncode == 0


def build(folder: Path) -> Path:
    """Build the wheel of the checkout and return it."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--wheel-dir",
    ]
    subprocess.run([*command, str(folder), str(HERE)], check=True, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


def check_content(wheel: Path) -> int:
    """Compare the wheel's files with the checkout's and return their number. Raises CheckError."""
    expected = set()
    for source, target in (("invokeclone", "invokeclone"), ("alembic", "invokeclone/migrations")):
        for file in (HERE / source).rglob("*"):
            if file.is_file() and file.suffix != ".pyc":
                expected.add(f"{target}/{file.relative_to(HERE / source)}")
    with zipfile.ZipFile(wheel) as archive:
        content = {name for name in archive.namelist() if ".dist-info/" not in name}
    if content != expected:
        raise CheckError(
            f"missing in the wheel: {sorted(expected - content)}; not in the checkout: {sorted(content - expected)}"
        )
    return len(content)


def new_environment(interpreter: Path | str, folder: Path) -> Path:
    """Create an environment without pip and return its interpreter."""
    subprocess.run([str(interpreter), "-m", "venv", "--without-pip", "--clear", str(folder)], check=True)
    return folder / "bin" / "python"


def check_origin(python: Path, folder: Path) -> None:
    """Check that the package is imported from the environment, and that the application does not import torch."""
    code = "import sys, invokeclone, invokeclone.server.app; print(invokeclone.__file__, 'torch' in sys.modules)"
    file, with_torch = run([python, "-c", code], folder).split()
    if not Path(file).is_relative_to(python.parents[1]):
        raise CheckError(f"invokeclone is imported from {file}, not from {python.parents[1]}")
    if with_torch != "False":
        raise CheckError("importing the application imports torch")


class Server:
    """`invokeclone serve` of the installed wheel on its own root."""

    def __init__(self, python: Path, folder: Path) -> None:
        self.log = folder / "serve.log"
        with self.log.open("wb") as log:
            command = [python.with_name("invokeclone"), "serve", "--root", folder / "root", "--port", "19090"]
            self.process = subprocess.Popen(
                [str(word) for word in command],
                cwd=folder,
                env=environment(folder),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        self.url = self.wait_for(lambda: re.search(r"invokeclone is at (\S+)", self.text()), "the server's address")[1]

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, condition: Any, what: str) -> Any:
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            if result := condition():
                return result
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        raise CheckError(f"waited in vain for {what}\n{self.text()[-4000:]}")

    def ask(self, path: str, body: Any = None) -> bytes:
        """Return the response to a GET, or to a POST of `body`.

        Raises CheckError for statuses other than 200 and 201.
        """
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            raise CheckError(f"{path}: {error.code} {error.read()[:500]!r}") from error

    def finished_item(self) -> dict[str, Any]:
        """Enqueue a prompt and return its item once it has ended."""
        body = {"prompt": "a red circle on a blue background", "width": 128, "height": 128, "steps": 8, "seed": 1}
        self.ask("/api/v1/queue/default/enqueue_prompt", body)

        def poll_item() -> dict[str, Any] | None:
            (item,) = json.loads(self.ask("/api/v1/queue/default/list_all"))
            return item if item["status"] in {"completed", "failed", "canceled"} else None

        return dict(self.wait_for(poll_item, "the item to end"))

    def stop(self) -> None:
        """Stop the server as a service manager does. Raises CheckError when it does not exit cleanly."""
        self.process.terminate()
        if self.process.wait(timeout=PATIENCE_S) != 0:
            raise CheckError(f"the server ended with {self.process.returncode}\n{self.text()[-4000:]}")


@contextlib.contextmanager
def serving(python: Path, folder: Path) -> Iterator[Server]:
    server = Server(python, folder)
    try:
        yield server
        server.stop()
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()


def check_commands(python: Path, folder: Path) -> None:
    """Run the commands that need no server."""
    command = python.with_name("invokeclone")
    migrated = run([command, "db", "upgrade", "--root", folder / "migrated"], folder)
    newest = max(file.name.split("_")[0] for file in (HERE / "alembic" / "versions").glob("[0-9]*_*.py"))
    if f"is at revision {newest}" not in migrated:
        raise CheckError(f"db upgrade does not reach revision {newest}: {migrated}")
    document = json.loads(run([command, "openapi", "--root", folder / "migrated"], folder))
    if "/api/v1/queue/{queue_id}/enqueue_batch" not in document["paths"]:
        raise CheckError("the OpenAPI document has no route to enqueue a batch")


def check_answers(server: Server) -> None:
    """Request data from the wheel's files: the page, default workflows, presets, starter models, the embedded model."""
    if b"<html" not in server.ask("/"):
        raise CheckError("the page is not served")
    models = json.loads(server.ask("/api/v2/models/"))["models"]
    if [model["name"] for model in models] != ["Embedded Tiny"]:
        raise CheckError(f"the embedded model is not installed: {models}")
    workflows = json.loads(server.ask("/api/v1/workflows/?page=0&per_page=100&categories=default"))
    presets = json.loads(server.ask("/api/v1/style_presets/"))
    starters = json.loads(server.ask("/api/v2/models/starter_models"))["starter_models"]
    for name, published in (("workflows", workflows["items"]), ("presets", presets), ("starter models", starters)):
        if not published:
            raise CheckError(f"there are no {name}")


def check_with_models(wheel: Path, folder: Path) -> None:
    """Install the wheel together with .venv's libraries and generate an image."""
    python = new_environment(sys.executable, folder / "environment")
    if not pip(python, "install", "--no-deps", wheel):
        raise CheckError("pip cannot install the wheel")
    libraries = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (packages,) = (python.parents[1] / "lib").glob("python*/site-packages")
    # A path in a .pth file is searched for libraries, while .pth files in it, such as that of the editable installation, are not read.
    (packages / "libraries.pth").write_text("".join(f"{path}\n" for path in sorted(libraries)), encoding="utf-8")
    if not pip(python, "check", quiet=False):
        raise CheckError("the wheel's requirements are not met by what the lock file installs")
    check_origin(python, folder)
    check_commands(python, folder)
    with serving(python, folder) as server:
        check_answers(server)
        item = server.finished_item()
        if item["status"] != "completed":
            raise CheckError(f"the item is {item['status']}: {item['error_message']}\n{server.text()[-4000:]}")
        (image,) = json.loads(server.ask("/api/v1/images/?is_intermediate=false"))["items"]
        file = server.ask(f"/api/v1/images/i/{image['image_name']}/full")
        if not file.startswith(PNG) or (image["width"], image["height"]) != (128, 128):
            raise CheckError(f"the image is not a PNG of 128 by 128 pixels: {image}")


def needs_torch(name: str) -> bool:
    """Return whether the library, as installed here, cannot be installed without torch."""
    if canonicalize_name(name) == "torch":
        return True
    required = [Requirement(text) for text in requires(name) or []]
    return any(r.name == "torch" and (r.marker is None or r.marker.evaluate({"extra": ""})) for r in required)


def dependencies(wheel: Path) -> list[str]:
    """Return the requirements of the wheel that can be installed without torch."""
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = archive.read(metadata).decode().partition("\n\n")[0].splitlines()
    texts = [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]
    return [text for text in texts if "extra ==" not in text and not needs_torch(Requirement(text).name)]


def interpreters() -> dict[str, str]:
    """Return the other supported interpreters of this machine, one per version."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    current = f"{sys.version_info.major}.{sys.version_info.minor}"
    by_version = {}
    for version in VERSIONS:
        candidates = [shutil.which(f"python{version}"), *sorted(pyenv.glob(f"{version}.*/bin/python"), reverse=True)]
        code = "import sys, venv, ssl, sqlite3; print('%d.%d' % sys.version_info[:2])"
        for candidate in candidates if version != current else ():
            if candidate is None:
                continue
            ran = subprocess.run([str(candidate), "-c", code], capture_output=True, text=True, check=False)
            if ran.stdout.strip() == version:
                by_version[version] = str(candidate)
                break
    return by_version


def environment_without_torch(interpreter: str, version: str, wheel: Path) -> Path | None:
    """Return the interpreter of an environment with the wheel and its dependencies except torch.

    Returns None where those cannot be installed.
    """
    needed = dependencies(wheel)
    key = json.dumps([needed, interpreter, [Path(file).read_text() for file in CONSTRAINTS[1::2]]])
    stamp, target = hashlib.sha256(key.encode()).hexdigest(), CACHE / version
    python = target / "bin" / "python"
    if not (target / "stamp").is_file() or (target / "stamp").read_text() != stamp:
        report(f"Python {version}: installing {len(needed)} dependencies")
        CACHE.mkdir(parents=True, exist_ok=True)
        new_environment(interpreter, target)
        if not pip(python, "install", "--no-compile", *CONSTRAINTS, *needed):
            return None
        (target / "stamp").write_text(stamp)
    if not pip(python, "install", "--no-deps", "--force-reinstall", wheel):
        raise CheckError(f"Python {version}: pip cannot install the wheel")
    return python


def check_without_torch(python: Path, folder: Path) -> None:
    """Check that everything but models works, and that the log, the item and the command line say what is missing."""
    advice = "torch is not installed: `python -m pip install torch`"
    if run([python, "-c", "import importlib.util as u; print(u.find_spec('torch'))"], folder).strip() != "None":
        raise CheckError("torch is installed")
    check_origin(python, folder)
    check_commands(python, folder)
    with serving(python, folder) as server:
        check_answers(server)
        server.wait_for(lambda: f"no model can run: {advice}" in server.text(), "the log to say that torch is missing")
        item = server.finished_item()
        if item["status"] != "failed" or advice not in item["error_message"]:
            raise CheckError(f"the item does not say that torch is missing: {item['status']} {item['error_message']}")
        if "starting it again" in server.text():
            raise CheckError(f"workers are started again and again\n{server.text()[-4000:]}")
    generate = [str(python.with_name("invokeclone")), "generate", "a red circle", "--out", str(folder / "image.png")]
    output = run([*generate, "--root", str(folder / "generated")], folder, fails=True)
    if advice not in output.splitlines()[-1]:
        raise CheckError(f"generate does not say that torch is missing: {output[-1000:]}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only-own", action="store_true", help="skip the other interpreters")
    arguments = parser.parse_args()
    current = f"{sys.version_info.major}.{sys.version_info.minor}"
    other_interpreters = {} if arguments.only_own else interpreters()
    try:
        with tempfile.TemporaryDirectory(prefix="check-wheel-") as temporary:
            folder = Path(temporary)
            wheel = build(folder)
            report(f"{wheel.name}: {check_content(wheel)} files, those of the checkout")
            (folder / current).mkdir()
            check_with_models(wheel, folder / current)
            report(f"Python {current}: installed, migrated, served, made an image")
            for version, interpreter in other_interpreters.items():
                python = environment_without_torch(interpreter, version, wheel)
                if python is None:
                    report(f"Python {version}: SKIPPED, its dependencies cannot be installed here")
                    continue
                (folder / version).mkdir()
                check_without_torch(python, folder / version)
                report(f"Python {version}: installed without torch, migrated, published, served, said what is missing")
            for version in sorted(set(VERSIONS) - set(other_interpreters) - {current}):
                report(
                    f"Python {version}: SKIPPED, {'not asked for' if arguments.only_own else 'not found on this machine'}"
                )
    except CheckError as error:
        report(f"FAILED: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
