"""Boards as clients read them; it knows the form and no SQL."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

BoardName = Annotated[str, Field(max_length=300)]


class BoardVisibility(StrEnum):
    """Who beside its owner sees a board (`shared`) or may also change it (`public`)."""

    Private = "private"
    Shared = "shared"
    Public = "public"


class BoardRecordOrderBy(StrEnum):
    """What boards are sorted by."""

    CreatedAt = "created_at"
    Name = "board_name"


class BoardDTO(BaseModel):
    """A board with what is computed for it: counts (intermediates aside) and cover. Times are UTC text.

    The cover is the newest starred image, else the newest one. `owner_username` is told in lists, to admins.
    `is_private` is always false: the web UI 6.8.1 lists only boards that say so.
    """

    board_id: str
    board_name: str
    user_id: str
    created_at: datetime | str
    updated_at: datetime | str
    deleted_at: datetime | str | None = None
    cover_image_name: str | None
    archived: bool
    board_visibility: BoardVisibility = BoardVisibility.Private
    cover_video_name: str | None = None
    image_count: int
    video_count: int = 0
    asset_count: int
    owner_username: str | None = None
    is_private: bool | None = False


class BoardChanges(BaseModel):
    """What may be changed of a board; what is absent or null stays as it is."""

    model_config = ConfigDict(extra="forbid")

    board_name: BoardName | None = None
    archived: bool | None = None
    cover_image_name: str | None = None
    board_visibility: BoardVisibility | None = None


class DeleteBoardResult(BaseModel):
    """What became of a deleted board's images: on no board now, or deleted as well."""

    board_id: str
    deleted_board_images: list[str]
    deleted_images: list[str]
    deleted_board_videos: list[str] = []
    deleted_videos: list[str] = []
    failed_images: list[str] = []
    failed_videos: list[str] = []


class AddImagesToBoardResult(BaseModel):
    """What was put on a board, and the boards it came from and went to."""

    affected_boards: list[str]
    added_images: list[str]
    failed_images: list[str]


class RemoveImagesFromBoardResult(BaseModel):
    """What was taken off its board, and the boards it came from."""

    affected_boards: list[str]
    removed_images: list[str]
    failed_images: list[str]


class VideoBoardArg(BaseModel):
    """Which video goes on which board."""

    board_id: str
    video_name: str


class AddVideosToBoardResult(BaseModel):
    """What was put on a board, and the boards it came from and went to."""

    affected_boards: list[str]
    added_videos: list[str]


class RemoveVideosFromBoardResult(BaseModel):
    """What was taken off its board, and the boards it came from."""

    affected_boards: list[str]
    removed_videos: list[str]


class VirtualSubBoardDTO(BaseModel):
    """What was made on a day, as a board; the cover is the newest of it."""

    virtual_board_id: str
    board_name: str
    date: str
    image_count: int
    asset_count: int
    video_count: int = 0
    cover_image_name: str | None = None
    cover_video_name: str | None = None
