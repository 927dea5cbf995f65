"""The `boards` interface: boards of the item's user."""

from invokeclone.boards.schemas import BoardDTO
from invokeclone.graph.context import BoardLike
from invokeclone.worker.interfaces.tools import Session


class Boards:
    """The boards interface of one node."""

    def __init__(self, session: Session) -> None:
        """Serve a node of `session`."""
        self._backend = session.backend
        self._tools = session.tools

    def create(self, board_name: str) -> BoardDTO:
        """Create a board owned by the item's user."""
        return self._tools.wait(self._backend.create_board(board_name))

    def get_dto(self, board_id: str) -> BoardDTO:
        """Return the board's record; raises BoardNotFound, NotYourBoard."""
        return self._tools.wait(self._backend.board(board_id))

    def get_all(self) -> list[BoardLike]:
        """Return the boards that the item's user may see: own and non-private ones."""
        return list(self._tools.wait(self._backend.boards()))

    def add_image_to_board(self, board_id: str, image_name: str) -> None:
        """Move an image to a board.

        Raises BoardNotFound, ImageNotFound, and NotYourBoard or ImageNotYours if the item's user may not do that.
        """
        self._tools.wait(self._backend.add_to_board(board_id, image_name))

    def get_all_image_names_for_board(self, board_id: str) -> list[str]:
        """Return the names of the images on a board that the item's user may see, newest first."""
        return self._tools.wait(self._backend.board_image_names(board_id))
