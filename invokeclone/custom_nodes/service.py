"""The packs of one server: which there are, installing, removing and reloading them, and telling the workers.

What goes wrong with a pack is an answer, not an error: it must not stop anything else.
"""

import asyncio
import shutil
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import uuid4

from invokeclone.custom_nodes import inspection, naming, sources, workflows
from invokeclone.custom_nodes.adopt import adopt
from invokeclone.custom_nodes.schemas import (
    InstallNodePackResponse,
    NodePackInfo,
    NodePackListResponse,
    UninstallNodePackResponse,
)
from invokeclone.graph.invocations import registry
from invokeclone.kit import log
from invokeclone.kit.process.offload import in_thread
from invokeclone.kit.resources import Resources
from invokeclone.users.current import User

_log = log.get("custom_nodes")


class Packs:
    """The packs in the custom nodes folder. All methods belong on the event loop."""

    def __init__(
        self,
        resources: Resources,
        changed: Callable[[list[str]], None],
        *,
        command: Sequence[str] = inspection.COMMAND,
        patience: float = inspection.PATIENCE_S,
    ) -> None:
        """Call `changed` with the names of all usable packs whenever these or their nodes have changed."""
        self._resources = resources
        self._changed = changed
        self._command = command
        self._patience = patience
        self._types: dict[str, list[str]] = {}
        self._one_at_a_time = asyncio.Lock()

    @property
    def folder(self) -> Path:
        """The folder of the packs."""
        return self._resources.settings.custom_nodes_path

    @property
    def usable(self) -> list[str]:
        """The names of the packs whose nodes can be used."""
        return sorted(self._types)

    async def start(self) -> None:
        """Take over what the folder holds."""
        async with self._one_at_a_time:
            await self._read_all()

    def stop(self) -> None:
        """Take every pack's nodes out of the vocabulary."""
        for name in self._types:
            registry.forget_pack(name)
        self._types.clear()

    async def listing(self) -> NodePackListResponse:
        """Return the installed packs, those too that can't be used."""
        names = await in_thread(naming.present, self.folder)
        packs = [
            NodePackInfo(name=name, path=str(self.folder / name), node_count=len(types), node_types=types)
            for name in names
            for types in (sorted(self._types.get(name, [])),)
        ]
        return NodePackListResponse(node_packs=packs, custom_nodes_path=str(self.folder))

    async def reload(self) -> str:
        """Take over anew what the folder holds; return what came of it, in words."""
        async with self._one_at_a_time:
            problems = await self._read_all()
        said = f"{len(self._types)} node packs with {sum(map(len, self._types.values()))} nodes are loaded"
        return said + "".join(f"; {name} is not: {reason}" for name, reason in problems.items())

    async def install(self, source: str, user: User) -> InstallNodePackResponse:
        """Fetch a pack, look what it holds and take it over; nothing is left of one that fails."""
        source = source.strip()
        name = naming.named(source)
        if not naming.fits(name):
            return _failed(name, "no pack can have this name")
        async with self._one_at_a_time:
            if await in_thread(lambda: (self.folder / name).exists() or (self.folder / name).is_symlink()):
                return _failed(name, f"there is a pack {name} already; remove it first")
            part = self.folder / f".installing-{uuid4().hex[:8]}"
            try:
                return await self._install(source, part / name, user)
            except sources.SourceError as error:
                return _failed(name, str(error))
            except OSError as error:
                _log.exception("the pack %s can't be installed", name)
                return _failed(name, f"it can't be put into {self.folder}: {error}")
            finally:
                await in_thread(shutil.rmtree, part, ignore_errors=True)

    async def _install(self, source: str, fetched: Path, user: User) -> InstallNodePackResponse:
        name = fetched.name
        await in_thread(fetched.parent.mkdir, parents=True)
        await sources.fetch(source, fetched, self._resources.settings)
        if not await in_thread((fetched / "__init__.py").is_file):
            return _failed(name, "it has no __init__.py, so it is no node pack")
        wanted = await in_thread(dependencies, fetched)
        found = (await self._inspect(fetched.parent, [name]))[name]
        if found.error is not None and not (found.missing and wanted):
            return _failed(name, f"it can't be imported: {found.error}", wanted)
        target = self.folder / name
        await in_thread(fetched.rename, target)
        if found.error is None and (reason := self._adopt(name, found)):
            await in_thread(self._remove, name)
            return _failed(name, reason, wanted)
        self._changed(self.usable)
        count = await workflows.bring_in(self._resources, target, user)
        return InstallNodePackResponse(
            name=name,
            success=True,
            message=_told(name, len(self._types.get(name, [])), wanted, found.error),
            workflows_imported=count,
            requires_dependencies=wanted is not None,
            dependency_file=wanted,
        )

    async def uninstall(self, name: str) -> UninstallNodePackResponse:
        """Remove a pack, its nodes and its workflows. Queue items that hold its nodes stay readable."""
        async with self._one_at_a_time:
            if name not in await in_thread(naming.present, self.folder):
                return UninstallNodePackResponse(name=name, success=False, message=f"there is no pack {name!r}")
            try:
                await in_thread(self._remove, name)
            except OSError as error:
                return UninstallNodePackResponse(name=name, success=False, message=f"it can't be removed: {error}")
            registry.forget_pack(name)
            self._types.pop(name, None)
            self._changed(self.usable)
            await workflows.take_out(self._resources, name)
        return UninstallNodePackResponse(name=name, success=True, message=f"The pack {name} is removed.")

    def _remove(self, name: str) -> None:
        """Take the folder away in one step, then delete it; of a link only the link."""
        path = self.folder / name
        if path.is_symlink():
            path.unlink()
            return
        gone = self.folder / f".removing-{uuid4().hex[:8]}"
        path.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

    async def _read_all(self) -> dict[str, str]:
        """Take over the nodes of every pack in the folder; return those that can't be, with the reasons."""
        names = await in_thread(self._tidy)
        found = await self._inspect(self.folder, names)
        self.stop()
        problems: dict[str, str] = {}
        for name, pack in found.items():
            reason = pack.error or self._adopt(name, pack)
            if reason:
                problems[name] = reason
                _log.warning("the node pack %s can't be used: %s", name, reason)
        self._changed(self.usable)
        return problems

    def _adopt(self, name: str, found: inspection.Inspected) -> str | None:
        """Take over a pack's nodes; return why that can't be."""
        try:
            self._types[name] = adopt(name, found.description)
        except ValueError as error:
            return str(error)
        return None

    def _tidy(self) -> list[str]:
        """Return the names of the packs, after removing what an interrupted install or removal left."""
        if self.folder.is_dir():
            for pattern in (".installing-*", ".removing-*"):
                for left in self.folder.glob(pattern):
                    shutil.rmtree(left, ignore_errors=True)
        return naming.present(self.folder)

    async def _inspect(self, folder: Path, names: Sequence[str]) -> dict[str, inspection.Inspected]:
        return await inspection.inspect(folder, names, patience=self._patience, command=self._command)


def dependencies(folder: Path) -> str | None:
    """Return the name of the file in which a pack names libraries that it needs, if it does."""
    if (folder / "requirements.txt").is_file():
        return "requirements.txt"
    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8")).get("project", {})
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return None
    return "pyproject.toml" if isinstance(project, dict) and project.get("dependencies") else None


def _told(name: str, count: int, wanted: str | None, error: str | None) -> str:
    if error is not None:
        return (
            f"The pack {name} is installed, but can't be used yet: {error}. Install what {wanted} names, then reload."
        )
    needs = f" It names libraries in {wanted}; they are not installed by this." if wanted else ""
    return f"The pack {name} is installed, with {count} nodes.{needs}"


def _failed(name: str, message: str, wanted: str | None = None) -> InstallNodePackResponse:
    return InstallNodePackResponse(
        name=name,
        success=False,
        message=f"The pack {name} is not installed: {message}",
        requires_dependencies=wanted is not None,
        dependency_file=wanted,
    )
