"""Ray as the engine of a cluster's workers: the only module that imports it.

One actor per worker. Ray places actors and restarts them without limit, and never repeats a call. The calls have neither
data of clients nor results of items; Ray's object store is not used. The worker's token goes from the command to the
actor in a call, which Ray keeps nowhere: it is not part of the actor's record, its environment or its command line.
"""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from invokeclone.cluster.crew import NO_ANSWER, ClusterError, Node, Unreachable, is_loopback
from invokeclone.cluster.host import WorkerHost

AUTH_MODE = "RAY_AUTH_MODE"
LOCAL = "local"
PROBE_S = 60
RESTARTED = "its process or node has ended"


class RayHandle:
    """A WorkerHost in an actor."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    async def start(self, token: str | None) -> str:
        """Start the agent; return the worker's name."""
        return str(await _result(self._actor.start, token))

    async def state(self) -> str:
        """Return the state; waits while the actor is not placed."""
        return str(await _result(self._actor.state))

    async def stop(self, drain_s: float) -> None:
        """Ask the agent to stop."""
        await _result(self._actor.stop, drain_s)

    def end(self) -> None:
        """End the actor for good."""
        import ray

        with contextlib.suppress(*_ray_errors()):  # it is gone, or the cluster cannot be reached
            if ray.is_initialized():
                ray.kill(self._actor, no_restart=True)


async def _result(method: Any, *arguments: Any) -> Any:
    from ray.exceptions import ActorDiedError

    try:
        return await method.remote(*arguments)
    except ActorDiedError as error:
        raise Unreachable(_last_line(error), permanent=True) from error
    except _ray_errors() as error:  # the actor may be restarted, whether the call was run or not
        raise Unreachable(RESTARTED) from error


def _ray_errors() -> tuple[type[Exception], ...]:
    """Return the classes of errors that Ray raises if it cannot reach the cluster."""
    from ray.exceptions import RayError

    return (RayError, RuntimeError, OSError, ValueError)


def _last_line(error: Exception) -> str:
    """Return the line of an error with its reason: Ray's messages begin with what it did."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300].rstrip(".")


class RayEngine:
    """A cluster of Ray that this process is connected to."""

    def __init__(self, url: str, *, on_gpus: bool, cpus: int, root: Path | None, command: tuple[str, ...] = ()) -> None:
        """Place workers of the server at `url`, each with `cpus` CPUs and one GPU if `on_gpus`."""
        self._url = url
        self._on_gpus = on_gpus
        self._cpus = cpus
        self._root = root
        self._command = command

    async def nodes(self) -> list[Node]:
        """Return the live nodes."""
        import ray

        try:
            nodes = await asyncio.to_thread(ray.nodes)
        except _ray_errors() as error:
            raise Unreachable(_last_line(error)) from error
        resources = [(node, node.get("Resources") or {}) for node in nodes if node["Alive"]]
        return [
            Node(str(node["NodeManagerAddress"]), numbers.get("CPU", 0), numbers.get("GPU", 0))
            for node, numbers in resources
        ]

    def create(self, label: str) -> RayHandle:
        """Create an actor, which Ray places when its resources are free."""
        import ray

        kind = ray.remote(WorkerHost).options(
            num_cpus=self._cpus,
            num_gpus=1 if self._on_gpus else 0,
            max_restarts=-1,
            max_task_retries=0,
            name=label,
        )
        device = "cuda:0" if self._on_gpus else "cpu"  # Ray shows an actor nothing but its own GPU
        options = {"command": self._command} if self._command else {}
        try:
            return RayHandle(kind.remote(self._url, label, device=device, root=self._root, **options))
        except _ray_errors() as error:
            raise Unreachable(_last_line(error)) from error


def connect(address: str, *, allow_unauthenticated: bool) -> None:
    """Connect this process to a cluster, or start one on this machine (`local`). Raises ClusterError."""
    if address.startswith("ray://"):
        raise ClusterError(
            f"{address} is an address of Ray Client, which is not supported: run the command on a node of the cluster, "
            "with --address auto"
        )
    if address == LOCAL:
        os.environ.setdefault(AUTH_MODE, "token")
    ray = _import_ray()
    try:
        ray.init(
            address=address,
            logging_level="ERROR",
            log_to_driver=False,
            include_dashboard=False if address == LOCAL else None,
        )
    except Exception as error:  # Ray raises errors of many kinds here, plain ones, too
        _end(ray)
        raise ClusterError(
            f"cannot connect to the cluster {address}: {_last_line(error)}. Check --address and the cluster's token, and "
            "that this is a node of the cluster"
        ) from error
    if address == LOCAL:
        return
    try:
        _check_authentication(ray, allow_unauthenticated)
    except ClusterError:
        _end(ray)
        raise
    except _ray_errors() as error:
        _end(ray)
        raise ClusterError(f"{NO_ANSWER}: {_last_line(error)}. Check that its head runs, and --address") from error


def disconnect() -> None:
    """Disconnect; a cluster that `connect` has started ends."""
    import ray

    _end(ray)


def _end(ray: Any) -> None:
    with contextlib.suppress(*_ray_errors()):
        ray.shutdown()


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise ClusterError(f"Ray cannot be imported ({error}): install the extra, invokeclone[ray]") from error
    return ray


def _check_authentication(ray: Any, allow_unauthenticated: bool) -> None:
    """Raise ClusterError if the cluster answers without a token, unless that is allowed and all its nodes are local."""
    if not _answers_without_token(ray.get_runtime_context().gcs_address):
        return
    if not allow_unauthenticated:
        raise ClusterError(
            "whoever reaches a cluster that needs no token can run programs on its nodes: start its nodes and this command "
            f"with {AUTH_MODE}=token and the same token (docs/cluster.md), or add --allow-unauthenticated if all nodes are "
            "on this machine"
        )
    addresses = [str(node["NodeManagerAddress"]) for node in ray.nodes() if node["Alive"]]
    if elsewhere := [address for address in addresses if not _is_own(address)]:
        raise ClusterError(
            f"the cluster needs no token and has nodes on other machines ({', '.join(elsewhere[:5])}): start its nodes and "
            f"this command with {AUTH_MODE}=token and the same token (docs/cluster.md)"
        )


def _answers_without_token(address: str) -> bool:
    """Return whether the cluster answers a process that has no token. Raises ClusterError if that cannot be known."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:
        probe = subprocess.run(  # noqa: S603
            command,
            env={**environment, AUTH_MODE: "disabled"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PROBE_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ClusterError("the cluster does not answer, so that it is unknown whether it needs a token") from error
    if probe.returncode != 0 and "authenticat" not in probe.stderr.lower():
        lines = probe.stderr.strip().splitlines() or ["no message"]
        raise ClusterError(f"it is unknown whether the cluster needs a token: {lines[-1][:300]}")
    return probe.returncode == 0


def _is_own(address: str) -> bool:
    """Return whether an address is of this machine: whether a socket can be bound to it."""
    if is_loopback(address):
        return True
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True
