"""A module with the functions of Ray that `ray_engine` calls; each one named in `failures` raises that error instead."""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


class RayError(Exception):
    pass


class ActorDiedError(RayError):
    pass


class FakeRay(ModuleType):
    """Ray with one node, on which an actor is a method call away."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__("ray")
        self.exceptions = ModuleType("ray.exceptions")
        self.exceptions.RayError, self.exceptions.ActorDiedError = RayError, ActorDiedError  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "ray", self)
        monkeypatch.setitem(sys.modules, "ray.exceptions", self.exceptions)
        self.failures: dict[str, Exception] = {}
        self.calls: list[str] = []

    def _do(self, name: str, result: Any = None) -> Any:
        self.calls.append(name)
        if name in self.failures:
            raise self.failures[name]
        return result

    def init(self, **_options: Any) -> None:
        self._do("init")

    def is_initialized(self) -> bool:
        return "init" in self.calls

    def shutdown(self) -> None:
        self._do("shutdown")

    def nodes(self) -> list[dict[str, Any]]:
        node = {"NodeManagerAddress": "127.0.0.1", "Alive": True, "Resources": {"CPU": 1.0}}
        return list(self._do("nodes", [node, {"NodeManagerAddress": "10.0.0.2", "Alive": False}]))

    def get_runtime_context(self) -> Any:
        return self._do("get_runtime_context", SimpleNamespace(gcs_address="127.0.0.1:6379"))

    def kill(self, _actor: Any, **_options: Any) -> None:
        self._do("kill")

    def remote(self, _kind: Any) -> Any:
        return SimpleNamespace(options=lambda **_options: SimpleNamespace(remote=self._create))

    def _create(self, *_arguments: Any, **_options: Any) -> Any:
        self._do("create")
        return SimpleNamespace(
            **{name: SimpleNamespace(remote=self._method(name)) for name in ("start", "state", "stop")}
        )

    def _method(self, name: str) -> Any:
        async def run(*_arguments: Any) -> str:
            return str(self._do(name, "refused: no such server" if name == "state" else name))

        return run
