"""Management of node packs: list, install, remove and reload them, and notify the workers.

Problems of a pack are reported in the response instead of raised, so that other packs are not affected.
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
    """The packs in the custom nodes folder. Call all methods on the event loop."""

    def __init__(
        self,
        resources: Resources,
        changed: Callable[[list[str]], None],
        *,
        command: Sequence[str] = inspection.COMMAND,
        timeout_s: float = inspection.TIMEOUT_S,
    ) -> None:
        """Call `changed` with the names of all usable packs whenever the packs or their nodes have changed."""
        self._resources = resources
        self._changed = changed
        self._command = command
        self._timeout_s = timeout_s
        self._types: dict[str, list[str]] = {}
        self._lock = asyncio.Lock()

    @property
    def folder(self) -> Path:
        """The folder of the packs."""
        return self._resources.settings.custom_nodes_path

    @property
    def usable(self) -> list[str]:
        """The names of the packs whose nodes can be used."""
        return sorted(self._types)

    async def start(self) -> None:
        """Register the nodes of all packs in the folder."""
        async with self._lock:
            await self._read_all()

    def stop(self) -> None:
        """Unregister the nodes of all packs."""
        for name in self._types:
            registry.forget_pack(name)
        self._types.clear()

    async def listing(self) -> NodePackListResponse:
        """Return the installed packs, including those that cannot be used."""
        names = await in_thread(naming.find_packs, self.folder)
        packs = [
            NodePackInfo(name=name, path=str(self.folder / name), node_count=len(types), node_types=types)
            for name in names
            for types in (sorted(self._types.get(name, [])),)
        ]
        return NodePackListResponse(node_packs=packs, custom_nodes_path=str(self.folder))

    async def reload(self) -> str:
        """Reload all packs in the folder; return a summary for the user."""
        async with self._lock:
            problems = await self._read_all()
        summary = f"{len(self._types)} node packs with {sum(map(len, self._types.values()))} nodes loaded"
        return summary + "".join(f"; {name} not loaded: {reason}" for name, reason in problems.items())

    async def install(self, source: str, user: User) -> InstallNodePackResponse:
        """Fetch, inspect and register a pack; remove all its files if that fails."""
        source = source.strip()
        name = naming.name_of(source)
        if not naming.is_valid(name):
            return _failure(name, "the name is not valid for a pack")
        async with self._lock:
            if await in_thread(lambda: (self.folder / name).exists() or (self.folder / name).is_symlink()):
                return _failure(name, f"a pack {name} is already installed; remove it first")
            part = self.folder / f".installing-{uuid4().hex[:8]}"
            try:
                return await self._install(source, part / name, user)
            except sources.SourceError as error:
                return _failure(name, str(error))
            except OSError as error:
                _log.exception("the pack %s cannot be installed", name)
                return _failure(name, f"it cannot be written to {self.folder}: {error}")
            finally:
                await in_thread(shutil.rmtree, part, ignore_errors=True)

    async def _install(self, source: str, fetched: Path, user: User) -> InstallNodePackResponse:
        name = fetched.name
        await in_thread(fetched.parent.mkdir, parents=True)
        await sources.fetch(source, fetched, self._resources.settings)
        if not await in_thread((fetched / "__init__.py").is_file):
            return _failure(name, "it is not a node pack, as it has no __init__.py")
        dependency_file = await in_thread(dependencies, fetched)
        result = (await self._inspect(fetched.parent, [name]))[name]
        if result.error is not None and not (result.missing and dependency_file):
            return _failure(name, f"it cannot be imported: {result.error}", dependency_file)
        target = self.folder / name
        await in_thread(fetched.rename, target)
        if result.error is None and (reason := self._adopt(name, result)):
            await in_thread(self._remove, name)
            return _failure(name, reason, dependency_file)
        self._changed(self.usable)
        count = await workflows.import_workflows(self._resources, target, user)
        return InstallNodePackResponse(
            name=name,
            success=True,
            message=_install_message(name, len(self._types.get(name, [])), dependency_file, result.error),
            workflows_imported=count,
            requires_dependencies=dependency_file is not None,
            dependency_file=dependency_file,
        )

    async def uninstall(self, name: str) -> UninstallNodePackResponse:
        """Remove a pack, its nodes and its workflows. Queue items with its nodes stay readable."""
        async with self._lock:
            if name not in await in_thread(naming.find_packs, self.folder):
                return UninstallNodePackResponse(
                    name=name, success=False, message=f"no installed pack is named {name!r}"
                )
            try:
                await in_thread(self._remove, name)
            except OSError as error:
                return UninstallNodePackResponse(
                    name=name, success=False, message=f"the pack cannot be removed: {error}"
                )
            registry.forget_pack(name)
            self._types.pop(name, None)
            self._changed(self.usable)
            await workflows.delete_workflows(self._resources, name)
        return UninstallNodePackResponse(name=name, success=True, message=f"The pack {name} was removed.")

    def _remove(self, name: str) -> None:
        """Delete the pack's folder after renaming it, so that it disappears atomically; of a symlink only the link."""
        path = self.folder / name
        if path.is_symlink():
            path.unlink()
            return
        removed_path = self.folder / f".removing-{uuid4().hex[:8]}"
        path.rename(removed_path)
        shutil.rmtree(removed_path, ignore_errors=True)

    async def _read_all(self) -> dict[str, str]:
        """Register the nodes of all packs in the folder; return the reasons of failed packs by name."""
        names = await in_thread(self._tidy)
        results = await self._inspect(self.folder, names)
        self.stop()
        problems: dict[str, str] = {}
        for name, pack in results.items():
            reason = pack.error or self._adopt(name, pack)
            if reason:
                problems[name] = reason
                _log.warning("the node pack %s cannot be used: %s", name, reason)
        self._changed(self.usable)
        return problems

    def _adopt(self, name: str, result: inspection.Inspection) -> str | None:
        """Register a pack's nodes; return the reason if that fails."""
        try:
            self._types[name] = adopt(name, result.description)
        except ValueError as error:
            return str(error)
        return None

    def _tidy(self) -> list[str]:
        """Remove the leftovers of interrupted installs and removals, and return the names of the packs."""
        if self.folder.is_dir():
            for pattern in (".installing-*", ".removing-*"):
                for leftover in self.folder.glob(pattern):
                    shutil.rmtree(leftover, ignore_errors=True)
        return naming.find_packs(self.folder)

    async def _inspect(self, folder: Path, names: Sequence[str]) -> dict[str, inspection.Inspection]:
        return await inspection.inspect(folder, names, timeout_s=self._timeout_s, command=self._command)


def dependencies(folder: Path) -> str | None:
    """Return the name of the file that declares a pack's dependencies, if there is one."""
    if (folder / "requirements.txt").is_file():
        return "requirements.txt"
    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8")).get("project", {})
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return None
    return "pyproject.toml" if isinstance(project, dict) and project.get("dependencies") else None


def _install_message(name: str, count: int, dependency_file: str | None, error: str | None) -> str:
    if error is not None:
        return f"The pack {name} was installed, but cannot be used yet: {error}. Install the dependencies in {dependency_file}, then reload."
    needs = f" Its dependencies in {dependency_file} are not installed automatically." if dependency_file else ""
    return f"The pack {name} was installed, with {count} nodes.{needs}"


def _failure(name: str, message: str, dependency_file: str | None = None) -> InstallNodePackResponse:
    return InstallNodePackResponse(
        name=name,
        success=False,
        message=f"The pack {name} was not installed: {message}",
        requires_dependencies=dependency_file is not None,
        dependency_file=dependency_file,
    )
