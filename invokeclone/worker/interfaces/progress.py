"""The `util` interface: progress events, previews and cancellation checks.

Each call emits one event, without throttling; the link drops progress events only if the server reads too slowly.
Thread-safe.
"""

import base64
import io
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from invokeclone.graph.checkpoints import checkpoint
from invokeclone.graph.context import CanceledException, PipelineIntermediateState
from invokeclone.graph.vocabulary.taxonomy import BaseModelType
from invokeclone.kit.files.image_modes import convert
from invokeclone.worker.events import NodeEvents

if TYPE_CHECKING:
    from PIL.Image import Image

JPEG_QUALITY = 75

Preview = Callable[[Any, BaseModelType], tuple["Image", int]]
"""Renders latents (batch, channels, height, width) of a model base; returns a small image and the pixels per latent."""


class NodeProgress:
    """The util interface of one node."""

    def __init__(self, events: NodeEvents, canceled: threading.Event, preview: Preview) -> None:
        """Emit progress through `events`; `canceled` is the item's flag."""
        self._events = events
        self._canceled = canceled
        self._preview = preview

    def is_canceled(self) -> bool:
        """Return whether the item was canceled; long-running nodes should check it regularly."""
        return self._canceled.is_set()

    def signal_progress(
        self,
        message: str,
        percentage: float | None = None,
        image: "Image | None" = None,
        image_size: tuple[int, int] | None = None,
    ) -> None:
        """Emit a progress event; `image` is displayed at `image_size` (width, height) or its own size.

        Raises CanceledException when the item was canceled.
        """
        self._check()
        progress_image = None
        if image is not None:
            width, height = image_size or image.size
            progress_image = {"width": width, "height": height, "dataURL": data_url(image)}
        self._events.progress(message, percentage, progress_image)

    def sd_step_callback(self, intermediate_state: PipelineIntermediateState, base_model: BaseModelType) -> None:
        """Emit a denoising step with a preview; raises CanceledException when the item was canceled."""
        self._step(intermediate_state, base_model)

    def flux_step_callback(self, intermediate_state: PipelineIntermediateState) -> None:
        """Emit a denoising step of FLUX with a preview."""
        self._step(intermediate_state, BaseModelType.Flux)

    def flux2_step_callback(self, intermediate_state: PipelineIntermediateState) -> None:
        """Emit a denoising step of FLUX.2 with a preview."""
        self._step(intermediate_state, BaseModelType.Flux2)

    def _step(self, state: PipelineIntermediateState, base: BaseModelType) -> None:
        self._check()
        sample = state.latents if state.predicted_original is None else state.predicted_original
        image, factor = self._preview(sample, base)
        size = (image.width * factor, image.height * factor)
        self.signal_progress("Denoising", progress_fraction(state), image, size)

    def _check(self) -> None:
        """Raise CanceledException if the item was canceled, also in threads started by the node."""
        if self.is_canceled():
            checkpoint()
            raise CanceledException("the queue item was canceled")


def progress_fraction(state: PipelineIntermediateState) -> float:
    """Return the completed fraction of the denoising loop; second-order solvers report each step twice."""
    step, total = state.step, state.total_steps
    if state.order == 2:  # noqa: PLR2004  (the order of the solver)
        step, total = step // 2, total // 2
    return step / total if total else 0.0


def data_url(image: "Image") -> str:
    """Return `image` as a JPEG in a data URL."""
    buffer = io.BytesIO()
    (image if image.mode in {"RGB", "L"} else convert(image, "RGB")).save(buffer, format="JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
