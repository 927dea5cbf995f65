"""Selection of device and number format, and the memory of devices.

All differences between CUDA, ROCm (which torch also calls cuda), XPU, MPS and the CPU are handled in this module.
"""

import contextlib
from collections import deque
from collections.abc import Iterator, Sequence
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
"""Weights times latents per call below which a second thread costs more than it gains (measured on two cores)."""


def _xpu() -> Any:
    """Return torch's module for Intel GPUs, None if torch was built without it."""
    xpu = getattr(torch, "xpu", None)
    return xpu if xpu is not None and xpu.is_available() else None


def normalize(device: torch.device | str) -> torch.device:
    """Return the device with an explicit index: `cuda` becomes `cuda:0`; the CPU and MPS have none."""
    device = torch.device(device)
    if device.type in ("cuda", "xpu") and device.index is None:
        return torch.device(device.type, 0)
    return device if device.type in ("cuda", "xpu") else torch.device(device.type)


def available_devices() -> list[str]:
    """Return the names of the devices that can generate images: every GPU, else MPS, else the CPU."""
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
    """Return the configured device; `auto` or no settings select the first available one."""
    if settings is not None and settings.device != "auto":
        return normalize(settings.device)
    return torch.device(available_devices()[0])


def choose_dtype(device: torch.device | str, precision: Precision = "auto") -> torch.dtype:
    """Return the number format for weights and denoising on `device`.

    It is float32 on the CPU and on cards that compute NaN in half precision, regardless of `precision`; otherwise
    `precision`, with float16 for `auto`.
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
    """Return the name of the number format that `choose_dtype` selects, such as `float16`."""
    return str(choose_dtype(device, precision)).removeprefix("torch.")


def bfloat16_is_safe(device: torch.device | str) -> bool:
    """Return whether `device` computes in bfloat16, which some families need instead of float16."""
    device = torch.device(device)
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return device.type in ("cpu", "xpu")


def choose_bfloat16_dtype(device: torch.device | str, precision: Precision = "auto") -> torch.dtype:
    """Return the number format on `device` for networks that overflow in float16.

    It is bfloat16, on the CPU too, regardless of `precision`; but float32 on a GPU if `precision` is float32, and
    `choose_dtype`'s on devices that do not compute in bfloat16.
    """
    is_cpu = torch.device(device).type == "cpu"
    if not bfloat16_is_safe(device) or (precision == "float32" and not is_cpu):
        return choose_dtype(device, precision)
    return torch.bfloat16


def device_name(device: torch.device | str) -> str:
    """Return the marketing name of the hardware."""
    device = torch.device(device)
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    if device.type == "xpu" and (xpu := _xpu()):
        return str(xpu.get_device_name(device))
    return str(device.type).upper()


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether `error` reports that the device's memory is full."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "out of memory" in str(error).lower()
    )


def synchronize(device: torch.device | str) -> None:
    """Wait for all queued computations on `device`."""
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "xpu" and (xpu := _xpu()):
        xpu.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def empty_cache(device: torch.device | str) -> None:
    """Release memory that torch caches but does not use on `device`."""
    device = torch.device(device)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.empty_cache()
    elif device.type == "xpu" and (xpu := _xpu()):
        xpu.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def to_memory_format(model: Any, device: torch.device | str) -> Any:
    """Return the model in the memory format that is fastest for convolutions on `device`: channels last on the CPU."""
    return model.to(memory_format=torch.channels_last) if torch.device(device).type == "cpu" else model


@contextlib.contextmanager
def limit_threads(model: Any, latent_count: int, device: torch.device | str) -> Iterator[None]:
    """Use one thread on the CPU if a call of `model` on `latent_count` latents (of the whole batch) is a small job.

    The synchronization of threads after every small operation costs more than parallelism gains, especially on a
    busy machine.
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


class PendingCopies:
    """Copies on a device that may not be complete yet; `complete` is the event of their completion, if there is one."""

    def __init__(self, copies: Sequence[torch.Tensor], complete: Any = None) -> None:
        self._copies, self._complete = copies, complete

    def wait(self) -> Sequence[torch.Tensor]:
        """Return the copies; later computations on the device wait for them, this thread does not."""
        if self._complete is not None:
            stream = torch.cuda.current_stream(self._copies[0].device)
            stream.wait_event(self._complete)
            for tensor in self._copies:
                tensor.record_stream(stream)  # their memory is not used again before the computations have ended
        return self._copies


class DeviceMemory:
    """The memory of one device, in bytes. Tests replace it with a fake."""

    def __init__(self, device: torch.device | str) -> None:
        self.device = normalize(device)
        self._copy_stream: Any = None
        self._uses: deque[Any] = deque(maxlen=2)
        """Events of the ends of the last computations with copied weights, the latest last."""

    @property
    def separate(self) -> bool:
        """Whether models must be moved to reach the device; on the CPU they already are in its memory."""
        return bool(self.device.type != "cpu")

    def total(self) -> int:
        """Return the device's total memory."""
        if self.device.type == "cuda":
            return int(torch.cuda.get_device_properties(self.device).total_memory)
        if self.device.type == "xpu" and (xpu := _xpu()):
            return int(xpu.get_device_properties(self.device).total_memory)
        if self.device.type == "mps":
            return int(torch.mps.recommended_max_memory())
        return int(psutil.virtual_memory().total)

    def in_use(self) -> int:
        """Return the memory of this process's tensors on the device."""
        if self.device.type == "cuda":
            return int(torch.cuda.memory_allocated(self.device))
        if self.device.type == "xpu" and (xpu := _xpu()):
            return int(xpu.memory_allocated(self.device))
        if self.device.type == "mps":
            return int(torch.mps.current_allocated_memory())
        return int(psutil.Process().memory_info().rss)

    def free(self) -> int:
        """Return the available memory, including what torch holds in reserve."""
        if self.device.type == "cuda":
            unused, _ = torch.cuda.mem_get_info(self.device)
            return int(unused + torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device))
        if self.device.type in ("xpu", "mps"):
            return max(0, self.total() - self.in_use())
        return int(psutil.virtual_memory().available)

    def to_device(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the tensor on the device. Raises torch.OutOfMemoryError when it does not fit."""
        return tensor.to(self.device)

    @property
    def copies_ahead(self) -> bool:
        """Whether the device can copy from RAM while it computes: CUDA and ROCm."""
        return bool(self.device.type == "cuda")

    def start_copies(self, tensors: Sequence[torch.Tensor]) -> PendingCopies:
        """Begin to copy tensors to the device while it computes. Raises torch.OutOfMemoryError when they do not fit.

        Waits for the computation before the latest one that was marked by `mark_use`, so that copies do not pile up.
        """
        if len(self._uses) == self._uses.maxlen:
            self._uses[0].synchronize()
        if self._copy_stream is None:
            self._copy_stream = torch.cuda.Stream(self.device)
        with torch.cuda.stream(self._copy_stream):
            copies = [tensor.to(self.device, non_blocking=True) for tensor in tensors]
            return PendingCopies(copies, self._copy_stream.record_event())

    def mark_use(self) -> None:
        """Mark the end of a computation with copied weights."""
        self._uses.append(torch.cuda.current_stream(self.device).record_event())

    def to_ram(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the tensor in RAM."""
        return tensor.to("cpu")

    def peak(self) -> int:
        """Return the peak memory of this process's tensors since `reset_peak`; 0 where it is not tracked."""
        return int(torch.cuda.max_memory_allocated(self.device)) if self.device.type == "cuda" else 0

    def reset_peak(self) -> None:
        """Restart the measurement of `peak`."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def empty(self) -> None:
        """Release unused memory."""
        with contextlib.suppress(RuntimeError):  # the device was lost
            empty_cache(self.device)


class TorchDevice:
    """The same functions under the names that third-party nodes use."""

    CPU_DEVICE = CPU_DEVICE
    CUDA_DEVICE = CUDA_DEVICE
    MPS_DEVICE = MPS_DEVICE

    @classmethod
    def choose_torch_device(cls) -> torch.device:
        """Return the first available device."""
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
        """Return the device with an explicit index."""
        return normalize(device)

    @classmethod
    def empty_cache(cls) -> None:
        """Release unused memory."""
        empty_cache(choose_torch_device())
