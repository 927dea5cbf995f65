"""`invokeclone webui install | use | list | remove`: the official web UI, downloaded from its published package.

Only the static folder of the wheel is unpacked, after each of its files is checked against the hashes in the wheel's
RECORD. None of these files belongs to this project.
"""

import argparse
import base64
import csv
import gzip
import hashlib
import io
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from invokeclone.cli.command_settings import settings_for
from invokeclone.cli.main import CommandError
from invokeclone.server import webui

PACKAGE = "invokeai"
STATIC = "invokeai/frontend/web/dist/"
TESTED = ("6.8.1", "6.14.2")
OWN = "own"
FAILED = 1
COMPRESSED = frozenset({".html", ".css", ".js", ".mjs", ".json", ".svg", ".wasm", ".ttf", ".map"})
WORTH_COMPRESSING = 1_000
MAX_BUNDLE_BYTES = 512 * 1024 * 1024
"""Maximum total size of a bundle's files."""
MAX_FILES = 20_000
MAX_RECORD_BYTES = 16 * 1024 * 1024
"""Maximum size of a wheel's RECORD."""


def run(arguments: argparse.Namespace) -> int:
    """Run the action of the arguments; return the exit code."""
    root = settings_for(arguments, level="warning", uses=()).root
    actions = {"install": _install, "use": _use, "list": _list, "remove": _remove}
    return actions[arguments.action](root, arguments)


def _install(root: Path, arguments: argparse.Namespace) -> int:
    version = _check_version(arguments.version or TESTED[-1])
    if version not in TESTED:
        sys.stderr.write(f"invokeclone: {version} is not tested with this server ({', '.join(TESTED)} are)\n")
    if version in webui.list_versions(root):
        webui.activate(root, version)
        sys.stdout.write(f"{version} is already installed and now in use\n")
        return 0
    with tempfile.TemporaryDirectory(prefix="invokeclone-webui-") as scratch:
        wheel = Path(arguments.wheel) if arguments.wheel else fetch(version, Path(scratch))
        count = unpack(wheel, version, webui.folder(root))
    webui.activate(root, version)
    sys.stdout.write(
        f"installed the web UI {version} ({count} files) into {webui.folder(root) / version}; it is in use\n"
    )
    return 0


def _use(root: Path, arguments: argparse.Namespace) -> int:
    if arguments.version == OWN:
        webui.activate(root, None)
        sys.stdout.write("the built-in page is in use\n")
        return 0
    version = _require_installed(root, arguments.version)
    webui.activate(root, version)
    sys.stdout.write(f"{version} is in use\n")
    return 0


def _list(root: Path, _arguments: argparse.Namespace) -> int:
    active_version = webui.active_version(root)
    for name in (OWN, *webui.list_versions(root)):
        sys.stdout.write(f"{'*' if name == (active_version or OWN) else ' '} {name}\n")
    return 0


def _remove(root: Path, arguments: argparse.Namespace) -> int:
    version = _require_installed(root, arguments.version)
    if webui.active_version(root) == version:
        webui.activate(root, None)
    shutil.rmtree(webui.folder(root) / version)
    sys.stdout.write(f"removed {version}\n")
    return 0


def _check_version(version: str) -> str:
    if not webui.VERSION.fullmatch(version):
        raise CommandError(f"{version} is not a version")
    return version


def _require_installed(root: Path, version: str) -> str:
    if version not in webui.list_versions(root):
        raise CommandError(f"the web UI {version} is not installed (`invokeclone webui list`)")
    return version


def fetch(version: str, into: Path) -> Path:
    """Download the published wheel with pip, which verifies it against the index. Raises CommandError."""
    sys.stderr.write(f"downloading {PACKAGE} {version} (about 13 MB)\n")
    process = subprocess.run(  # noqa: S603  (our own interpreter; the version is checked)
        [
            *(sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--quiet"),
            *("--disable-pip-version-check", "--dest", str(into), f"{PACKAGE}=={version}"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    wheels = list(into.glob("*.whl"))
    if process.returncode or len(wheels) != 1:
        errors = [line for line in process.stderr.splitlines() if line.startswith("ERROR")]
        raise CommandError(
            f"pip could not download it: {errors[-1] if errors else process.stderr.strip()[-300:]}", FAILED
        )
    return wheels[0]


def unpack(wheel: Path, version: str, base: Path) -> int:
    """Unpack the wheel's static files into `base`/`version`, verified and with gzip copies; return their number.

    Installs either all files or none. Raises CommandError for a wheel of another package or one that does not match its
    RECORD.
    """
    base.mkdir(parents=True, exist_ok=True)
    partial = base / f".{version}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with zipfile.ZipFile(wheel) as archive:
            hashes = _read_hashes(archive, version)
            entries = [
                entry for entry in archive.infolist() if entry.filename.startswith(STATIC) and not entry.is_dir()
            ]
            if sum(entry.file_size for entry in entries) > MAX_BUNDLE_BYTES or len(entries) > MAX_FILES:
                raise CommandError("the web UI in this package is over the size limits", FAILED)
            for entry in tqdm(entries, "unpacking", unit="file", leave=False):
                _write_file(partial, entry.filename, archive.read(entry), hashes)
        if not (partial / webui.INDEX).is_file():
            raise CommandError("this package contains no web UI", FAILED)
        partial.replace(base / version)
    except (OSError, zipfile.BadZipFile) as error:
        raise CommandError(f"cannot unpack {wheel.name}: {error}", FAILED) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return len(entries)


def _read_hashes(archive: zipfile.ZipFile, version: str) -> dict[str, str]:
    """Return the SHA-256 of each file in the wheel's RECORD."""
    name = f"{PACKAGE}-{version}.dist-info/RECORD"
    if name not in archive.namelist():
        raise CommandError(f"this is not the package {PACKAGE} {version}", FAILED)
    if archive.getinfo(name).file_size > MAX_RECORD_BYTES:
        raise CommandError("the RECORD in this package is over the size limit", FAILED)
    rows = csv.reader(io.StringIO(archive.read(name).decode()))
    return {row[0]: row[1].removeprefix("sha256=") for row in rows if len(row) > 1 and row[1].startswith("sha256=")}


def _write_file(folder: Path, name: str, body: bytes, hashes: dict[str, str]) -> None:
    """Verify and write one file, and a gzip copy of a large compressible one."""
    digest = base64.urlsafe_b64encode(hashlib.sha256(body).digest()).rstrip(b"=").decode()
    if hashes.get(name) != digest:
        raise CommandError(f"{name} does not match the package's RECORD", FAILED)
    relative = PurePosixPath(name.removeprefix(STATIC))
    if relative.is_absolute() or ".." in relative.parts:
        raise CommandError(f"{name} is outside of the target folder", FAILED)
    path = folder / relative
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)
    if path.suffix in COMPRESSED and len(body) >= WORTH_COMPRESSING:
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(body, 9, mtime=0))
