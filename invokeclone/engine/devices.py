"""Which device computes, in which number format, and how much memory it has left; it refuses to know what runs there.

Everything that differs between CUDA, ROCm (which torch calls cuda too), XPU, MPS and the CPU stands here and nowhere else.
"""

import contextlib
from collections.abc import Iterator
from typing import Any, Literal

import psutil
import torch

from invokeclone.kit.config.settings import Settings

CPU_DEVICE = torch.device("cpu")
CUDA_DEVICE = torch.device("cuda")
MPS_DEVICE = torch.device("mps")

Precision = Literal["auto", "float16", "bfloat16", "float32"]
_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
_HALF_IS_BROKEN = ("GeForce GTX 1650", "GeForce GTX 1660", "GeForce GTX 1630")
"""Cards that compute NaN in half precision."""
_WORTH_TWO_THREADS = 2_000_000_000
"""Weights times places of one call below which a second thread costs more than it gives (measured on two cores)."""


def _xpu() -> Any:
    """Return torch's module for Intel GPUs, None where torch was built without."""
    xpu = getattr(torch, "xpu", None)
    return xpu if xpu is not None and xpu.is_available() else None


def normalize(device: torch.device | str) -> torch.device:
    """Return the device with its index: `cuda` is `cuda:0`; the CPU and MPS have none."""
    device = torch.device(device)
    if device.type in ("cuda", "xpu") and device.index is None:
        return torch.device(device.type, 0)
    return device if device.type in ("cuda", "xpu") else torch.device(device.type)


def available_devices() -> list[str]:
    """Return the names of the devices pictures can be made on: every GPU, else MPS, else the CPU."""
    if torch.cuda.is_available():
        return [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if xpu := _xpu():
        return [f"xpu:{index}" for index in range(xpu.device_count())]
    return ["mps"] if torch.backends.mps.is_available() else ["cpu"]


def generation_devices(settings: Settings) -> list[str]:
    """Return the devices that get a worker each, by the settings `generation_devices` and `device`."""
    if settings.generation_devices != "auto":
        return [str(normalize(name)) for name in settings.generation_devices]
    if settings.device != "auto":
        return [str(normalize(settings.device))]
    return available_devices()


def choose_torch_device(settings: Settings | None = None) -> torch.device:
    """Return the device of the settings; `auto` (and no settings) is the first that is available."""
    if settings is not None and settings.device != "auto":
        return normalize(settings.device)
    return torch.device(available_devices()[0])


def choose_dtype(device: torch.device | str, precision: Precision = "auto") -> torch.dtype:
    """Return the number format for weights and denoising on `device`.

    float32 on the CPU, and on cards that compute NaN in half precision, whatever `precision` says; else `precision`, and
    float16 for `auto`.
    """
    device = torch.device(device)
    if device.type == "cpu" or (device.type == "cuda" and _half_is_broken(device)):
        return torch.float32
    if precision != "auto":
        return _DTYPES[precision]
    return torch.float16 if device.type in ("cuda", "xpu", "mps") else torch.float32


def _half_is_broken(device: torch.device) -> bool:
    return bool(torch.cuda.get_device_name(device).removeprefix("NVIDIA ").startswith(_HALF_IS_BROKEN))


def choose_precision(device: torch.device | str, precision: Precision = "auto") -> str:
    """Return the name of what `choose_dtype` chooses, as `float16`."""
    return str(choose_dtype(device, precision)).removeprefix("torch.")


def bfloat16_is_safe(device: torch.device | str) -> bool:
    """Tell whether `device` computes in bfloat16, which some families need instead of float16."""
    device = torch.device(device)
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return device.type in ("cpu", "xpu")


def device_name(device: torch.device | str) -> str:
    """Return the name of the hardware, as people know it."""
    device = torch.device(device)
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    if device.type == "xpu" and (xpu := _xpu()):
        return str(xpu.get_device_name(device))
    return str(device.type).upper()


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether `error` says that the device's memory is full."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "out of memory" in str(error).lower()
    )


def synchronize(device: torch.device | str) -> None:
    """Wait until everything handed to `device` is computed."""
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "xpu" and (xpu := _xpu()):
        xpu.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def empty_cache(device: torch.device | str) -> None:
    """Give memory that torch holds and nobody uses back to `device`."""
    device = torch.device(device)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.empty_cache()
    elif device.type == "xpu" and (xpu := _xpu()):
        xpu.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def to_memory_format(model: Any, device: torch.device | str) -> Any:
    """Return the model with its weights in the order that convolutions on `device` like best: channels last on the CPU."""
    return model.to(memory_format=torch.channels_last) if torch.device(device).type == "cpu" else model


@contextlib.contextmanager
def limit_threads(model: Any, latent_count: int, device: torch.device | str) -> Iterator[None]:
    """On the CPU, let a call of `model` over so many `places` (latents in the batch) that is small work be one thread's.

    Threads that wait for each other after every small operation cost more than they give, all the more on a busy machine.
    """
    before = torch.get_num_threads()
    small = torch.device(device).type == "cpu" and before > 1 and _weights(model) * latent_count < _WORTH_TWO_THREADS
    if small:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if small:
            torch.set_num_threads(before)


def _weights(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


class DeviceMemory:
    """The memory of one device, in bytes. Tests put a fake in its place."""

    def __init__(self, device: torch.device | str) -> None:
        self.device = normalize(device)

    @property
    def separate(self) -> bool:
        """Whether models must be moved to reach the device (on the CPU they are there already)."""
        return bool(self.device.type != "cpu")

    def total(self) -> int:
        """Return how much memory the device has."""
        if self.device.type == "cuda":
            return int(torch.cuda.get_device_properties(self.device).total_memory)
        if self.device.type == "xpu" and (xpu := _xpu()):
            return int(xpu.get_device_properties(self.device).total_memory)
        if self.device.type == "mps":
            return int(torch.mps.recommended_max_memory())
        return int(psutil.virtual_memory().total)

    def in_use(self) -> int:
        """Return how much this process has in tensors there."""
        if self.device.type == "cuda":
            return int(torch.cuda.memory_allocated(self.device))
        if self.device.type == "xpu" and (xpu := _xpu()):
            return int(xpu.memory_allocated(self.device))
        if self.device.type == "mps":
            return int(torch.mps.current_allocated_memory())
        return int(psutil.Process().memory_info().rss)

    def free(self) -> int:
        """Return how much could still be taken, memory that torch holds in reserve included."""
        if self.device.type == "cuda":
            unused, _ = torch.cuda.mem_get_info(self.device)
            return int(unused + torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device))
        if self.device.type in ("xpu", "mps"):
            return max(0, self.total() - self.in_use())
        return int(psutil.virtual_memory().available)

    def to_device(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the tensor on the device; raises torch.OutOfMemoryError when it does not fit."""
        return tensor.to(self.device)

    def to_ram(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the tensor in RAM."""
        return tensor.to("cpu")

    def peak(self) -> int:
        """Return the most this process has had in tensors there since `reset_peak`; 0 where nobody counts."""
        return int(torch.cuda.max_memory_allocated(self.device)) if self.device.type == "cuda" else 0

    def reset_peak(self) -> None:
        """Begin a new count for `peak`."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def empty(self) -> None:
        """Give memory back that nobody uses."""
        with contextlib.suppress(RuntimeError):  # a device that was lost
            empty_cache(self.device)


class TorchDevice:
    """The same choices under the names that third-party nodes call."""

    CPU_DEVICE = CPU_DEVICE
    CUDA_DEVICE = CUDA_DEVICE
    MPS_DEVICE = MPS_DEVICE

    @classmethod
    def choose_torch_device(cls) -> torch.device:
        """Return the first device that is available."""
        return choose_torch_device()

    @classmethod
    def choose_torch_dtype(cls, device: torch.device | None = None) -> torch.dtype:
        """Return the number format for weights on `device`."""
        return choose_dtype(device or choose_torch_device())

    @classmethod
    def get_torch_device_name(cls) -> str:
        """Return the name of the hardware."""
        return device_name(choose_torch_device())

    @classmethod
    def normalize(cls, device: torch.device | str) -> torch.device:
        """Return the device with its index."""
        return normalize(device)

    @classmethod
    def empty_cache(cls) -> None:
        """Give memory back that nobody uses."""
        empty_cache(choose_torch_device())
