"""Request and response schemas of boards."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

BoardName = Annotated[str, Field(max_length=300)]


class BoardVisibility(StrEnum):
    """Whether other users may see a board (`shared`) or also change its content (`public`)."""

    Private = "private"
    Shared = "shared"
    Public = "public"


class BoardRecordOrderBy(StrEnum):
    """Sort keys of boards."""

    CreatedAt = "created_at"
    Name = "board_name"


class BoardDTO(BaseModel):
    """A board with computed counts (without intermediates) and cover. Times are UTC text.

    The cover is the newest starred image, else the newest one. `owner_username` is set in lists for admins only.
    `is_private` is always false: the web UI 6.8.1 lists only boards with this value.
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
    """Changes to a board; absent or null fields are unchanged."""

    model_config = ConfigDict(extra="forbid")

    board_name: BoardName | None = None
    archived: bool | None = None
    cover_image_name: str | None = None
    board_visibility: BoardVisibility | None = None


class DeleteBoardResult(BaseModel):
    """The images and videos of a deleted board: removed from the board, or deleted as well."""

    board_id: str
    deleted_board_images: list[str]
    deleted_images: list[str]
    deleted_board_videos: list[str] = []
    deleted_videos: list[str] = []
    failed_images: list[str] = []
    failed_videos: list[str] = []


class AddImagesToBoardResult(BaseModel):
    """Images added to a board, and the boards they were on before and after."""

    affected_boards: list[str]
    added_images: list[str]
    failed_images: list[str]


class RemoveImagesFromBoardResult(BaseModel):
    """Images removed from their boards, and those boards."""

    affected_boards: list[str]
    removed_images: list[str]
    failed_images: list[str]


class VideoBoardArg(BaseModel):
    """A video and the board to add it to."""

    board_id: str
    video_name: str


class AddVideosToBoardResult(BaseModel):
    """Videos added to a board, and the boards they were on before and after."""

    affected_boards: list[str]
    added_videos: list[str]


class RemoveVideosFromBoardResult(BaseModel):
    """Videos removed from their boards, and those boards."""

    affected_boards: list[str]
    removed_videos: list[str]


class VirtualSubBoardDTO(BaseModel):
    """Images and videos of one day as a board; the cover is the newest one."""

    virtual_board_id: str
    board_name: str
    date: str
    image_count: int
    asset_count: int
    video_count: int = 0
    cover_image_name: str | None = None
    cover_video_name: str | None = None
