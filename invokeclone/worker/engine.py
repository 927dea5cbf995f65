"""The engine of a worker: torch and diffusers are imported in a thread of their own, and whoever needs them waits here.

Does not depend on torch: it is imported with the engine's parts, when they are first needed.
"""

import contextlib
import importlib
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from invokeclone.graph.checkpoints import POLL_INTERVAL_S, checkpoint
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, SubModelType
from invokeclone.kit import log
from invokeclone.kit.config.settings import Settings
from invokeclone.models.identify import registry
from invokeclone.worker.missing import advice

if TYPE_CHECKING:
    from PIL.Image import Image

_log = log.get("worker.engine")

PIXELS_PER_LATENT = 8
"""Along each side, of latents of an unknown family."""
IMPORT_FREE = frozenset(
    {
        *(
            f"invokeclone.nodes.data.{name}"
            for name in ("batch", "collections", "math", "primitives", "prompt_template", "strings", "workflows")
        ),
        *(
            f"invokeclone.nodes.images.{name}"
            for name in (
                "basic",
                "channels",
                "compose",
                "export",
                "filters",
                "infill",
                "match",
                "noise",
                "size",
                "tiles",
            )
        ),
        "invokeclone.graph.session.control",
        *(f"invokeclone.nodes.metadata.{name}" for name in ("adapters", "core", "models", "values")),
    }
)
"""Modules whose nodes import NumPy at most when they run: these run while the engine is being imported."""


class ModelCacheUsage(NamedTuple):
    """What the model cache did since the process began, and the bytes it holds now."""

    hits: int = 0
    misses: int = 0
    ram_bytes: int = 0
    device_bytes: int = 0


class Engine:
    """One device's model cache, made when the first model is asked for. All methods may be called from any thread."""

    def __init__(self, settings: Settings, device: str) -> None:
        """Load models to `device`."""
        self._settings = settings
        self._device = device
        self._cache: Any = None
        self._lock = threading.Lock()
        self._imported = threading.Event()
        self._imported.set()

    def warm_up(self, then: Callable[[], None]) -> None:
        """Import what models need in a thread of its own, so that the first picture doesn't wait; call `then` there after.

        Until that is done every other thread that would import parts of them waits in `wait_until_imported`: modules of torch,
        transformers and diffusers import each other in circles, and of two threads that wait for each other's module Python
        gives one an unfinished module ("cannot import name … from partially initialized module").
        """
        self._imported.clear()
        threading.Thread(target=self._import_all, args=(then,), name="warm-up", daemon=True).start()

    def wait_until_imported(self) -> None:
        """Wait for the warm-up, if there is one. Raises CanceledException when this thread's node is canceled meanwhile."""
        while not self._imported.wait(POLL_INTERVAL_S):
            checkpoint()

    def load(self, config: Any, path: Path, submodel_type: SubModelType | None) -> Any:
        """Return the LoadedModel of a record whose files lie at `path` (or of a part of it), from the cache or from disk."""
        return _part("loading.loaders").load(self._ready(), config, path, submodel_type)

    def load_file(self, path: Path, loader: Callable[[Path], Any] | None) -> Any:
        """Return the LoadedModelWithoutConfig of a file or folder that has no record."""
        return _part("loading.loaders").load_file(self._ready(), path, loader)

    def convert(self, base: str, path: str, target: str, prediction_type: str, *, half: bool) -> None:
        """Turn the single file at `path` into the folder `target`; raises ValueError when it can't be."""
        self._ready()
        conversion, torch = _part("loading.conversion"), sys.modules["torch"]
        dtype = torch.float16 if half else torch.float32
        conversion.convert(
            BaseModelType(base), conversion.SourceCheckpoint(Path(path), dtype, prediction_type), Path(target)
        )

    def preview(self, latents: Any, base: BaseModelType) -> tuple["Image", int]:
        """Return a small image of latents (batch or not, channels, height, width), and how many pixels each of its pixels stands for."""
        self.wait_until_imported()
        architecture = registry.architectures().get(base)
        space = architecture.latent_space_of(latents.shape) if architecture else None
        image: Image = _part("preview").preview(latents, space)
        return image, space.spatial_factor if space else PIXELS_PER_LATENT

    @staticmethod
    def watch_modules() -> None:
        """Have nodes pass a checkpoint at each module of a network; without effect before torch is imported. Never waits."""
        if checkpoints := sys.modules.get("invokeclone.engine.checkpoints"):
            checkpoints.watch_modules()

    @staticmethod
    def unwatch_modules() -> None:
        """Let networks run without checkpoints again."""
        if checkpoints := sys.modules.get("invokeclone.engine.checkpoints"):
            checkpoints.unwatch_modules()

    def new_stats(self) -> None:
        """Begin new counts, as for a new session."""
        if self._cache:
            self._cache.new_stats()

    def stats(self) -> dict[str, Any] | None:
        """Return the model cache's figures of the latest session; None before any model was asked for."""
        return self._cache.stats.as_dict() if self._cache else None

    def usage(self) -> ModelCacheUsage:
        """Return the model cache's figures of this process; never waits."""
        return ModelCacheUsage(*self._cache.usage()) if self._cache else ModelCacheUsage()

    def resident(self, limit: int = 50) -> list[str]:
        """Return the keys of the models in the cache, whole or a part of each, the `most` that were used last; never waits."""
        keys = reversed(self._cache.keys()) if self._cache else ()
        return list(dict.fromkeys(key.partition(":")[0] for key in keys))[:limit]

    def empty(self) -> None:
        """Drop every model that is not in use; may wait for a load that is going on."""
        if self._cache:
            self._cache.clear()

    def drop(self, keys: Sequence[str]) -> None:
        """Drop models whose records changed or went; may wait for a load that is going on."""
        if self._cache:
            for key in keys:
                self._cache.drop(key)

    def expire(self) -> None:
        """Drop everything after a long idle time, as the settings want it; may wait for a load that is going on."""
        if self._cache:
            self._cache.expire()

    @property
    def may_expire(self) -> bool:
        """Whether `expire` could have anything to do."""
        return self._cache is not None and self._settings.model_cache_keep_alive_min > 0

    def _ready(self) -> Any:
        self.wait_until_imported()
        with self._lock:
            if self._cache is None:
                self._cache = _part("cache").ModelCache(self._settings, self._device)
        return self._cache

    def _import_all(self, then: Callable[[], None]) -> None:
        try:  # what fails here goes to the log, and fails again with a node to blame
            _part("loading.loaders").warm_up()
            _part("preview")
        except ModuleNotFoundError as error:
            hint = advice(error)
            if hint is None:
                raise
            _log.error("no model can run: %s", hint, extra={"action": "import_engine", "device": self._device})
        finally:
            self._imported.set()
            then()


def _part(name: str) -> Any:
    return importlib.import_module(f"invokeclone.engine.{name}")


def describe_devices() -> list[dict[str, str]]:
    """Return the devices that could run items, as `{device, name}`; imports torch."""
    devices = _part("devices")
    names = devices.available_devices()
    descriptions = [{"device": name, "name": str(devices.device_name(name))} for name in names]
    if "cpu" not in names:
        descriptions.append({"device": "cpu", "name": str(devices.device_name("cpu"))})
    return descriptions


def first_device(device_setting: str) -> str:
    """Return the device to serve for `asked`: itself, or what `auto` finds; torch is imported only if there may be a GPU."""
    if device_setting != "auto":
        return device_setting
    if _has_no_gpu():
        return "cpu"
    with contextlib.suppress(ImportError):
        return str(_part("devices").available_devices()[0])
    return "cpu"


def _has_no_gpu() -> bool:
    """Tell cheaply that there is no GPU: torch was built without any, or Linux has no device file of one."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        if version("torch").endswith("+cpu"):
            return True
    except PackageNotFoundError:
        return True
    device_files = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd", "/dev/dri", "/dev/accel")
    return not any(Path(device_file).exists() for device_file in device_files)
