"""The worker's InvocationContext: assembles the interfaces, and contains the small ones. All calls are synchronous."""

import io
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from invokeclone.graph.checkpoints import checkpoint
from invokeclone.graph.context import ItemData
from invokeclone.graph.invocations.invocation import BaseInvocation
from invokeclone.kit import log
from invokeclone.kit.config.settings import Settings
from invokeclone.worker.backend.settings import without_server_folders
from invokeclone.worker.events import NodeEvents
from invokeclone.worker.interfaces.boards import Boards
from invokeclone.worker.interfaces.images import WorkerImages
from invokeclone.worker.interfaces.models import Models
from invokeclone.worker.interfaces.presets import Presets
from invokeclone.worker.interfaces.previews import Previews
from invokeclone.worker.interfaces.progress import NodeProgress
from invokeclone.worker.interfaces.tools import Session
from invokeclone.worker.tensors import TensorStore

if TYPE_CHECKING:
    import torch

_node_log = log.get("node")


class Tensors:
    """The tensors interface: tensors passed between nodes of this worker."""

    def __init__(self, store: TensorStore) -> None:
        """Use `store`."""
        self._store = store

    def save(self, tensor: "torch.Tensor") -> str:
        """Store a copy of the tensor on the CPU; return its name, valid while a cached output mentions it."""
        checkpoint()
        return self._store.save(tensor, "Tensor")

    def load(self, name: str) -> "torch.Tensor":
        """Return a copy on the CPU; raises StoredObjectNotFound."""
        checkpoint()
        tensor: torch.Tensor = self._store.load(name)
        return tensor


class WorkerConditioning:
    """The conditioning interface: conditionings passed between nodes of this worker."""

    def __init__(self, store: TensorStore) -> None:
        """Use `store`."""
        self._store = store

    def save(self, conditioning_data: Any) -> str:
        """Store a copy of a ConditioningFieldData; return its name."""
        checkpoint()
        return self._store.save(conditioning_data, "ConditioningFieldData")

    def load(self, name: str) -> Any:
        """Return a copy on the CPU; raises StoredObjectNotFound."""
        checkpoint()
        return self._store.load(name)


class Logger:
    """The logger interface."""

    def debug(self, message: str) -> None:
        """Log a debug message."""
        _node_log.debug("%s", message)

    def info(self, message: str) -> None:
        """Log an info message."""
        _node_log.info("%s", message)

    def warning(self, message: str) -> None:
        """Log a warning."""
        _node_log.warning("%s", message)

    def error(self, message: str) -> None:
        """Log an error."""
        _node_log.error("%s", message)


class Config:
    """The config interface: settings and text files."""

    def __init__(self, session: Session) -> None:
        """Serve a node of `session`."""
        self._session = session

    def get(self) -> Settings:
        """Return the app's settings; they are frozen. Folders that only the server has raise NotOnThisWorker."""
        tools = self._session.tools
        return without_server_folders(tools.resources.settings) if tools.remote else tools.resources.settings

    def open_text(self, path: str) -> AbstractContextManager[TextIO]:
        """Open a text file that the user may read; raises FileRefused, FileNotReadable, TooLarge, Unprocessable."""
        return io.StringIO(self._session.tools.wait(self._session.backend.read_text(path)))


_LOGGER = Logger()


@dataclass(frozen=True, slots=True)
class Context:
    """The context of one node, passed to `invoke`."""

    images: WorkerImages
    tensors: Tensors
    conditioning: WorkerConditioning
    models: Models
    logger: Logger
    config: Config
    util: NodeProgress
    boards: Boards
    presets: Presets
    data: ItemData

    @property
    def _data(self) -> ItemData:
        """Alias of `data` for third-party nodes."""
        return self.data


def make_context(session: Session, node: BaseInvocation, source_id: str, events: NodeEvents) -> Context:
    """Return the context of one prepared node of `session`."""
    tools = session.tools
    util = NodeProgress(events, session.canceled, Previews(session).render)
    return Context(
        images=WorkerImages(session, node, util),
        tensors=Tensors(tools.tensors),
        conditioning=WorkerConditioning(tools.tensors),
        models=Models(session, util),
        logger=_LOGGER,
        config=Config(session),
        util=util,
        boards=Boards(session),
        presets=Presets(session),
        data=ItemData(session.queue_item, node, source_id),
    )
