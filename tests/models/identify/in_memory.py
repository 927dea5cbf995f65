"""Model files that exist in memory only: names and shapes of tensors, as a header would declare them."""

from pathlib import Path

from invokeclone.models.files.model_files import ModelFiles
from invokeclone.models.files.tensors import Tensor
from tests.models.identify.layouts import Shapes


class FileInMemory(ModelFiles):
    """A single file of weights with the tensors `shapes`."""

    def __init__(self, shapes: Shapes, name: str = "model.safetensors", metadata: dict[str, str] | None = None) -> None:
        super().__init__(Path(name))
        self.__dict__["is_folder"] = False
        self.__dict__["_header"] = ({n: Tensor("F16", shape) for n, shape in shapes.items()}, metadata or {})

    def check(self) -> None:
        """Do nothing: there is no file to be damaged."""
