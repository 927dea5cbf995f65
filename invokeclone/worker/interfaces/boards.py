"""The `boards` interface: boards of the item's user."""

from invokeclone.boards import service, store
from invokeclone.boards.schemas import BoardDTO
from invokeclone.graph.context import BoardLike
from invokeclone.images import access
from invokeclone.worker.interfaces.tools import Session


class Boards:
    """The boards interface of one node."""

    def __init__(self, session: Session) -> None:
        """Serve a node of `session`."""
        self._session = session
        self._tools = session.tools
        self._user_id = session.item.user_id

    def create(self, board_name: str) -> BoardDTO:
        """Create a board owned by the item's user."""

        async def create() -> BoardDTO:
            async with self._tools.resources.database.write() as connection:
                return await store.create(connection, board_name, self._user_id)

        return self._tools.wait(create())

    def get_dto(self, board_id: str) -> BoardDTO:
        """Return the board's record; raises BoardNotFound, NotYourBoard."""
        user = self._session.user

        async def get() -> BoardDTO:
            async with self._tools.resources.database.read() as connection:
                await access.require_board_readable(connection, user, board_id)
                return await store.get(connection, board_id)

        return self._tools.wait(get())

    def get_all(self) -> list[BoardLike]:
        """Return the boards that the item's user may see: own and non-private ones."""
        user = self._session.user

        async def get_all() -> list[BoardDTO]:
            async with self._tools.resources.database.read() as connection:
                return await store.list_all(connection, user=user)

        return list(self._tools.wait(get_all()))

    def add_image_to_board(self, board_id: str, image_name: str) -> None:
        """Move an image to a board.

        Raises BoardNotFound, ImageNotFound, and NotYourBoard or ImageNotYours if the item's user may not do that.
        """
        user = self._session.user

        async def add() -> None:
            async with self._tools.resources.database.write() as connection:
                service.single(await service.add(connection, user, board_id, [image_name]), image_name)

        self._tools.wait(add())

    def get_all_image_names_for_board(self, board_id: str) -> list[str]:
        """Return the names of the images on a board that the item's user may see, newest first."""
        user = self._session.user

        async def names() -> list[str]:
            async with self._tools.resources.database.read() as connection:
                owner = await access.list_owner(connection, user, board_id)
                return await store.image_names(connection, board_id, owner=owner)

        return self._tools.wait(names())
