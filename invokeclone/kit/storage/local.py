"""Storage in local folders: atomic writes, hard links for copies, permissions of the surrounding folder."""

import contextlib
import errno
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from invokeclone.kit.files.storage import create, make_folder, remove_file
from invokeclone.kit.storage.protocol import CHUNK_SIZE, ObjectPart, ObjectStat

PART_SUFFIX = ".part"
_NO_LINKS = frozenset(
    {errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EMLINK, errno.EXDEV}
)


class LocalStorage:
    """Objects as files below a folder. Names that begin with a dot are not objects."""

    def __init__(self, folder: Path, areas: Mapping[str, Path] | None = None) -> None:
        """Store below `folder`; keys whose first component is in `areas` below its folder instead."""
        self._folder = folder
        self._areas = dict(areas or {})

    @property
    def address(self) -> str:
        """The folder."""
        return str(self._folder)

    def local_path(self, key: str) -> Path:
        """Return the path of the object's file."""
        area, _, rest = key.partition("/")
        folder = self._areas.get(area)
        return self._folder / key if folder is None else folder / rest

    def write(self, key: str, data: bytes, *, replace: bool = False) -> None:
        """Write an object atomically; raises FileExistsError if there is one with other content, unless `replace`."""
        path = self.local_path(key)
        make_folder(path.parent)
        part = _part_of(path)
        try:
            with create(part) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            _publish(part, path, replace=replace)
        except FileExistsError:
            part.unlink(missing_ok=True)
            if not _has_content(path, data):
                raise
        except BaseException:
            part.unlink(missing_ok=True)
            raise

    def write_file(self, key: str, path: Path, *, replace: bool = False) -> None:
        """Move a file into the storage; it is copied only if it is on another file system."""
        target = self.local_path(key)
        make_folder(target.parent)
        try:
            _publish(path, target, replace=replace)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            self._copy_file(path, target, replace=replace)
            path.unlink()

    def copy_file(self, key: str, path: Path) -> None:
        """Create or replace an object with the content of a file, which stays."""
        target = self.local_path(key)
        make_folder(target.parent)
        self._copy_file(path, target, replace=True)

    def get(self, key: str) -> bytes:
        """Return the content."""
        with _missing_folders():
            return self.local_path(key).read_bytes()

    def get_range(self, key: str, start: int, end: int) -> ObjectPart:
        """Return the bytes from `start` to before `end`, as far as they exist."""
        with _missing_folders(), self.local_path(key).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if start >= min(end, size):
                return ObjectPart(b"", size)
            file.seek(start)
            return ObjectPart(file.read(min(end, size) - start), size)

    def chunks(self, key: str, size: int = CHUNK_SIZE) -> Iterator[bytes]:
        """Yield the content in pieces."""
        with _missing_folders(), self.local_path(key).open("rb") as file:
            while piece := file.read(size):
                yield piece

    def stat(self, key: str) -> ObjectStat:
        """Return size and time of an object; a folder is none."""
        path = self.local_path(key)
        with _missing_folders():
            return _stat(key, path)

    def delete(self, keys: Iterable[str]) -> dict[str, OSError]:
        """Delete objects and return the keys whose deletion failed."""
        failed: dict[str, OSError] = {}
        for key in keys:
            try:
                remove_file(self.local_path(key))
            except NotADirectoryError:
                continue
            except OSError as error:
                failed[key] = error
        return failed

    def copy(self, source: str, target: str) -> None:
        """Create or replace `target`: a hard link, or a copy where the file system does not support links."""
        origin, path = self.local_path(source), self.local_path(target)
        if path.exists() and path.samefile(origin):
            return
        make_folder(path.parent)
        with _missing_folders():
            self._copy_file(origin, path, replace=True, link=True)

    def _copy_file(self, origin: Path, target: Path, *, replace: bool, link: bool = False) -> None:
        part = _part_of(target)
        try:
            if not (link and _try_link(origin, part)):
                shutil.copyfile(origin, part)
                with part.open("rb+") as copy:
                    os.fsync(copy.fileno())
            _publish(part, target, replace=replace)
        except BaseException:
            part.unlink(missing_ok=True)
            raise

    def list(self, prefix: str) -> Iterator[ObjectStat]:
        """Yield the objects whose keys are below `prefix`."""
        return self._list(prefix, lambda name: not name.startswith("."))

    def list_partial(self, prefix: str) -> Iterator[ObjectStat]:
        """Yield the temporary files below `prefix`."""
        return self._list(prefix, lambda name: name.startswith(".") and name.endswith(PART_SUFFIX))

    def _list(self, prefix: str, is_listed: Callable[[str], bool]) -> Iterator[ObjectStat]:
        root = self.local_path(prefix)
        visited: set[tuple[int, int]] = set()
        for folder, folders, names in os.walk(root, followlinks=True):
            status = Path(folder).stat()
            if (status.st_dev, status.st_ino) in visited:  # a link to a folder above it
                folders.clear()
                continue
            visited.add((status.st_dev, status.st_ino))
            folders[:] = [name for name in folders if not name.startswith(".")]
            relative = Path(folder).relative_to(root)
            for name in names:
                if is_listed(name):
                    path = Path(folder) / name
                    with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                        yield _stat("/".join((prefix, *relative.parts, name)), path)

    def presign(self, key: str, seconds: int) -> None:
        """Return None: files have no URLs."""
        del key, seconds

    def remove_partial(self, keys: Iterable[str]) -> None:
        """Remove the temporary files of these objects."""
        paths = {self.local_path(key) for key in keys}
        for parent in {path.parent for path in paths if path.parent.is_dir()}:
            for part in parent.glob(f".*{PART_SUFFIX}"):
                if parent / part.name[1:].rsplit(".", 2)[0] in paths:
                    part.unlink(missing_ok=True)


def _part_of(path: Path) -> Path:
    """Return a path beside `path` for its content while it is being written."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{PART_SUFFIX}")


def _publish(part: Path, path: Path, *, replace: bool) -> None:
    """Rename `part` to `path`; raises FileExistsError if there is one, unless `replace`."""
    if replace:
        part.replace(path)
    elif _try_link(part, path):
        part.unlink()
    elif path.exists():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    else:
        part.replace(path)


def _has_content(path: Path, data: bytes) -> bool:
    try:
        return path.stat().st_size == len(data) and path.read_bytes() == data
    except FileNotFoundError:  # deleted meanwhile
        return False


def _try_link(origin: Path, target: Path) -> bool:
    """Hard-link a file; false where that is not possible: no links, too many of them, or another disk."""
    try:
        os.link(origin, target)
    except OSError as error:
        if error.errno in _NO_LINKS:
            return False
        raise
    return True


def _stat(key: str, path: Path) -> ObjectStat:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    return ObjectStat(key, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))


@contextlib.contextmanager
def _missing_folders() -> Iterator[None]:
    """Raise FileNotFoundError where a component of the path is a file."""
    try:
        yield
    except NotADirectoryError as error:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), error.filename) from error
