"""The `images` interface: loads images, and saves them with the metadata of the node and its item."""

from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from invokeclone.graph.context import ImageMode
from invokeclone.graph.invocations.invocation import BaseInvocation
from invokeclone.graph.sizes import check_pixels
from invokeclone.graph.vocabulary.fields import MetadataField
from invokeclone.graph.vocabulary.taxonomy import ImageCategory
from invokeclone.images.schemas import ImageDTO
from invokeclone.kit.files.image_files import open_stored_image
from invokeclone.kit.files.image_modes import convert, upright
from invokeclone.kit.storage.protocol import StoredFile
from invokeclone.worker.backend.protocol import NodeImage
from invokeclone.worker.interfaces.progress import NodeProgress
from invokeclone.worker.interfaces.tools import Session

if TYPE_CHECKING:
    from PIL.Image import Image


class WorkerImages:
    """The images interface of one node."""

    def __init__(self, session: Session, node: BaseInvocation, progress: NodeProgress) -> None:
        """Serve `node` of `session`."""
        self._session = session
        self._backend = session.backend
        self._tools = session.tools
        self._node = node
        self._progress = progress

    def save(
        self,
        image: "Image",
        board_id: str | None = None,
        image_category: ImageCategory = ImageCategory.GENERAL,
        metadata: MetadataField | None = None,
    ) -> ImageDTO:
        """Save an image and its record; board and metadata default to the node's.

        The item's workflow and graph are embedded. Raises OSError if the disk is full, SizeOverLimit for an image over
        the limits.
        """
        self._progress.signal_progress("Saving image")
        limits = self._tools.resources.settings.limits
        check_pixels(image.width, image.height, limits, f"node {self._node.id} ({self._node.get_type()})")
        metadata = metadata or getattr(self._node, "metadata", None)
        board = getattr(self._node, "board", None)
        saved = self._tools.wait(
            self._backend.save_image(
                image,
                NodeImage(
                    category=image_category,
                    node_id=self._node.id,
                    is_intermediate=self._node.is_intermediate,
                    board_id=board_id or (board.board_id if board else None),
                    metadata=metadata.model_dump_json() if metadata else None,
                    workflow=self._session.item.workflow,
                    graph=self._session.graph_json,
                ),
            )
        )
        self._tools.images.keep(saved.image_name, image)
        return saved

    def get_pil(self, image_name: str, mode: ImageMode | None = None) -> "Image":
        """Return the image upright, converted if `mode` is given; raises ImageNotFound, ImageNotYours."""
        image = self._tools.images.get(image_name)
        if image is None:
            image = self._open(self._file(image_name))
            self._tools.images.keep(image_name, image)
        elif not self._session.user.is_admin:  # a cached image may belong to another user
            self._tools.wait(self._backend.require_image(image_name))
        return convert(image, mode) if mode and mode != image.mode else image

    def get_metadata(self, image_name: str) -> MetadataField | None:
        """Return the image's metadata, if it has any; raises ImageNotFound, ImageNotYours."""
        text = self._tools.wait(self._backend.image_metadata(image_name))
        return MetadataField.model_validate(orjson.loads(text)) if text else None

    def get_dto(self, image_name: str) -> ImageDTO:
        """Return the image's record, with the size of the upright image; raises ImageNotFound, ImageNotYours."""
        return self._tools.wait(self._backend.image(image_name))

    def get_path(self, image_name: str, thumbnail: bool = False) -> Path:
        """Return the path of the file, or of its thumbnail; raises ImageNotFound, ImageNotYours.

        If files are not stored on this machine, it is the path of a copy that stays for some time.
        """
        return self._tools.copies.path(self._file(image_name, thumbnail=thumbnail))

    def _file(self, image_name: str, *, thumbnail: bool = False) -> StoredFile:
        return self._tools.wait(self._backend.image_file(image_name, thumbnail=thumbnail))

    @staticmethod
    def _open(file: StoredFile) -> "Image":
        with open_stored_image(file.source()) as image:
            image.load()
            return upright(image.copy())
