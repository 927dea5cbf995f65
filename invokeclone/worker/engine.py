"""Access to the engine from a worker: imports torch and diffusers in a background thread, and loads models.

Does not import torch itself: the engine's modules are imported when first needed.
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
"""Pixels per latent along each side for latents of an unknown family."""
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
"""Modules whose nodes need NumPy at most: they can run while the engine is being imported."""


class ModelCacheUsage(NamedTuple):
    """Hits and misses of the model cache since the process started, and its current size in bytes."""

    hits: int = 0
    misses: int = 0
    ram_bytes: int = 0
    device_bytes: int = 0


class Engine:
    """The model cache of a device, created when the first model is requested. Thread-safe."""

    def __init__(self, settings: Settings, device: str) -> None:
        """Load models to `device`."""
        self._settings = settings
        self._device = device
        self._cache: Any = None
        self._lock = threading.Lock()
        self._imported = threading.Event()
        self._imported.set()

    def warm_up(self, then: Callable[[], None]) -> None:
        """Import the libraries for models in a background thread and then call `then` in it; speeds up the first image.

        Other threads that import parts of these libraries must first call `wait_until_imported`: torch, transformers
        and diffusers have circular imports, and if two threads wait for each other's module, Python returns a partially
        initialized module to one of them ("cannot import name … from partially initialized module").
        """
        self._imported.clear()
        threading.Thread(target=self._import_all, args=(then,), name="warm-up", daemon=True).start()

    def wait_until_imported(self) -> None:
        """Wait for a running warm-up. Raises CanceledException if this thread's node is canceled meanwhile."""
        while not self._imported.wait(POLL_INTERVAL_S):
            checkpoint()

    def load(self, config: Any, path: Path, submodel_type: SubModelType | None) -> Any:
        """Return the LoadedModel of a record with files at `path`, or of a submodel, from the cache or from disk."""
        return _part("loading.loaders").load(self._ready(), config, path, submodel_type)

    def load_file(self, path: Path, loader: Callable[[Path], Any] | None) -> Any:
        """Return the LoadedModelWithoutConfig of a file or folder without a record."""
        return _part("loading.loaders").load_file(self._ready(), path, loader)

    def convert(self, base: str, path: str, target: str, prediction_type: str, *, half: bool) -> None:
        """Convert the single-file model at `path` to the folder `target`; raises ValueError if that is not possible."""
        self._ready()
        conversion, torch = _part("loading.conversion"), sys.modules["torch"]
        dtype = torch.float16 if half else torch.float32
        conversion.convert(
            BaseModelType(base), conversion.SourceCheckpoint(Path(path), dtype, prediction_type), Path(target)
        )

    def preview(self, latents: Any, base: BaseModelType) -> tuple["Image", int]:
        """Return a small image of latents ([batch,] channels, height, width), and its scale factor to full size."""
        self.wait_until_imported()
        architecture = registry.architectures().get(base)
        space = architecture.latent_space_of(latents.shape) if architecture else None
        image: Image = _part("preview").preview(latents, space)
        return image, space.spatial_factor if space else PIXELS_PER_LATENT

    def decode_preview(self, config: Any, path: Path, latents: Any) -> tuple["Image", int]:
        """Return a preview of latents by the tiny autoencoder of a record, and its scale factor to full size.

        Raises an error of the loader, and torch.OutOfMemoryError if the device has no memory for it.
        """
        loaded = self.load(config, path, None)
        with loaded as vae:
            previews = importlib.import_module("invokeclone.components.autoencoders.previews")
            image: tuple[Image, int] = previews.decode_preview(vae, latents, loaded.device)
            return image

    @staticmethod
    def watch_modules() -> None:
        """Check for cancellation at each module of a network; does nothing before torch is imported. Does not block."""
        if checkpoints := sys.modules.get("invokeclone.engine.checkpoints"):
            checkpoints.watch_modules()

    @staticmethod
    def unwatch_modules() -> None:
        """Stop checking for cancellation at each module."""
        if checkpoints := sys.modules.get("invokeclone.engine.checkpoints"):
            checkpoints.unwatch_modules()

    def new_stats(self) -> None:
        """Reset the model cache's statistics, for a new session."""
        if self._cache:
            self._cache.new_stats()

    def stats(self) -> dict[str, Any] | None:
        """Return the model cache's statistics of the latest session; None if no model was requested yet."""
        return self._cache.stats.as_dict() if self._cache else None

    def usage(self) -> ModelCacheUsage:
        """Return the model cache's usage in this process. Does not block."""
        return ModelCacheUsage(*self._cache.usage()) if self._cache else ModelCacheUsage()

    def resident(self, limit: int = 50) -> list[str]:
        """Return the keys of the `limit` most recently used models in the cache, whole or in part. Does not block."""
        keys = reversed(self._cache.keys()) if self._cache else ()
        return list(dict.fromkeys(key.partition(":")[0] for key in keys))[:limit]

    def device_memory(self) -> dict[str, Any]:
        """Return the device's kind, and its memory in bytes: `total`, `free`, and `used` by this process's tensors.

        May wait for the warm-up.
        """
        self.wait_until_imported()
        memory = _part("devices").DeviceMemory(self._device)
        sizes = {"total": memory.total(), "free": memory.free(), "used": memory.in_use()}
        return {"device": self._device, "kind": memory.device.type, **sizes}

    def empty(self) -> None:
        """Drop all models that are not in use; may wait for a running load."""
        if self._cache:
            self._cache.clear()

    def free_device(self, error: BaseException) -> bool:
        """If a computation failed for lack of the device's memory, free it; return whether to try again."""
        devices = sys.modules.get("invokeclone.engine.devices")
        if self._cache is None or devices is None or not devices.is_out_of_memory(error):
            return False
        return bool(self._cache.free_device())

    def drop(self, keys: Sequence[str]) -> None:
        """Drop models whose records were changed or deleted; may wait for a running load."""
        if self._cache:
            for key in keys:
                self._cache.drop(key)

    def expire(self) -> None:
        """Drop all models if the configured idle time has passed; may wait for a running load."""
        if self._cache:
            self._cache.expire()

    @property
    def may_expire(self) -> bool:
        """Whether `expire` can have an effect."""
        return self._cache is not None and self._settings.model_cache_keep_alive_min > 0

    def _ready(self) -> Any:
        self.wait_until_imported()
        with self._lock:
            if self._cache is None:
                self._cache = _part("cache").ModelCache(self._settings, self._device)
        return self._cache

    def _import_all(self, then: Callable[[], None]) -> None:
        try:  # an error is logged here, and raised again in the node that needs the module
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
    """Return the devices that can run items, as `{device, name}`; imports torch."""
    devices = _part("devices")
    names = devices.available_devices()
    descriptions = [{"device": name, "name": str(devices.device_name(name))} for name in names]
    if "cpu" not in names:
        descriptions.append({"device": "cpu", "name": str(devices.device_name("cpu"))})
    return descriptions


def first_device(device_setting: str) -> str:
    """Return the device of a setting, resolving `auto`; imports torch only if there may be a GPU."""
    if device_setting != "auto":
        return device_setting
    if _has_no_gpu():
        return "cpu"
    with contextlib.suppress(ImportError):
        return str(_part("devices").available_devices()[0])
    return "cpu"


def _has_no_gpu() -> bool:
    """Return whether there is certainly no GPU: a CPU build of torch, or no GPU device file on Linux. Fast."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        if version("torch").endswith("+cpu"):
            return True
    except PackageNotFoundError:
        return True
    device_files = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd", "/dev/dri", "/dev/accel")
    return not any(Path(device_file).exists() for device_file in device_files)
