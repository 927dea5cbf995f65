"""Images as clients read them; it knows the form and neither SQL nor files."""

from datetime import datetime
from typing import Annotated, Literal, NamedTuple
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr

from invokeclone.graph.vocabulary.taxonomy import ImageCategory, ResourceOrigin
from invokeclone.kit.paging import SQLiteDirection

NO_BOARD = "none"
"""The name that clients give to being on no board."""

ImageNames = Annotated[list[Annotated[str, Field(max_length=255)]], Field(max_length=1000)]


def image_url(name: str) -> str:
    """Return where the picture is served, relative to the server's address."""
    return f"api/v1/images/i/{quote(name, safe='')}/full"


def thumbnail_url(name: str) -> str:
    """Return where the thumbnail is served, relative to the server's address."""
    return f"api/v1/images/i/{quote(name, safe='')}/thumbnail"


class ImageUrlsDTO(BaseModel):
    """Where an image's files are served."""

    image_name: str
    image_url: str
    thumbnail_url: str


class ImageDTO(BaseModel):
    """An image: what it is, where it came from and where it is served. Times are UTC text."""

    image_name: str
    image_url: str
    thumbnail_url: str
    image_origin: ResourceOrigin
    image_category: ImageCategory
    width: int
    height: int
    created_at: datetime | str
    updated_at: datetime | str
    deleted_at: datetime | str | None = None
    is_intermediate: bool
    session_id: str | None = None
    node_id: str | None = None
    starred: bool
    has_workflow: bool
    image_subfolder: str = ""
    board_id: str | None = None


class ImageRecordChanges(BaseModel):
    """What may be changed of an image; what is absent or null stays as it is, unknown keys are ignored."""

    model_config = ConfigDict(extra="allow")

    image_category: ImageCategory | None = None
    session_id: StrictStr | None = None
    is_intermediate: StrictBool | None = None
    starred: StrictBool | None = None


class ImageNamesResult(BaseModel):
    """The names of a whole list in its order; the starred ones come first."""

    image_names: list[str]
    starred_count: int
    total_count: int


class DeleteImagesResult(BaseModel):
    """What was deleted, and from which boards."""

    affected_boards: list[str]
    deleted_images: list[str]
    failed_images: list[str]


class StarredImagesResult(BaseModel):
    """What was starred, and on which boards."""

    affected_boards: list[str]
    starred_images: list[str]
    failed_images: list[str]


class UnstarredImagesResult(BaseModel):
    """What lost its star, and on which boards."""

    affected_boards: list[str]
    unstarred_images: list[str]
    failed_images: list[str]


class WorkflowAndGraphResponse(BaseModel):
    """The workflow and the graph embedded in an image, as JSON text."""

    workflow: str | None
    graph: str | None


class ImageUploadEntry(BaseModel):
    """Where to send a picture; kept for the schema, there is no such second way to upload."""

    image_dto: ImageDTO
    presigned_url: str


class ImagesDownloaded(BaseModel):
    """The name of a zip file that is being made."""

    response: str | None = None
    bulk_download_item_name: str | None = None


MoveState = Literal["planned", "moving", "moved", "committed", "error"]


class ImageMoveJobResponse(BaseModel):
    """A move of all images: how far it is, or how it ended."""

    id: int
    state: MoveState
    error_message: str | None = None


class ImageMoveStatusResponse(BaseModel):
    """Whether images are being moved, the newest job, and how many images lie elsewhere than they should."""

    is_running: bool
    operation: Literal["move_all", "recovery"] | None = None
    active_job_id: int | None = None
    latest_job: ImageMoveJobResponse | None = None
    last_error: str | None = None
    needs_move_count: int


class ImageFilter(BaseModel, frozen=True):
    """Which images (or videos) a list holds and in which order.

    `board_id` "none" means on no board, None means wherever; `owner` None means everybody's;
    `created_date` is a day in UTC, `YYYY-MM-DD`; `text_query` is what `search.narrowed` makes of `search_term`,
    and `few_found` whether the text index finds few enough for a page too.
    """

    owner: str | None = None
    origin: ResourceOrigin | None = None
    categories: tuple[ImageCategory, ...] | None = None
    is_intermediate: bool | None = None
    board_id: str | None = None
    created_date: str | None = None
    search_term: str | None = None
    text_query: str | None = None
    few_found: bool = True
    order_dir: SQLiteDirection = SQLiteDirection.Descending
    starred_first: bool = True


class NewRecord(BaseModel, frozen=True):
    """A record to be made, for files that are already written."""

    width: int
    height: int
    session_id: str | None = None
    node_id: str | None = None
    metadata: str | None = None
    is_intermediate: bool = False
    has_workflow: bool = False
    board_id: str | None = None
    user_id: str = "system"


class NewImage(NewRecord, frozen=True):
    """The record of an image to be made."""

    image_name: str
    image_origin: ResourceOrigin
    image_category: ImageCategory
    image_subfolder: str = ""


class ImageLocation(NamedTuple):
    """Which files belong to an image."""

    name: str
    subfolder: str


class AffectedItem(NamedTuple):
    """An image that a bulk change reached, and the board it is (or was) on."""

    location: ImageLocation
    board_id: str | None


class BulkChange(NamedTuple):
    """What a bulk change reached, and the names of the images that were another user's to change."""

    items: list[AffectedItem]
    refused: list[str] = []  # noqa: RUF012  (never changed)

    @property
    def names(self) -> list[str]:
        """The names of what it reached."""
        return [item.location.name for item in self.items]

    @property
    def boards(self) -> list[str]:
        """The boards of what it reached."""
        return boards_of(self.items)


def boards_of(items: list[AffectedItem]) -> list[str]:
    """Return the boards that `touched` images are on, each once, "none" for those on no board."""
    return sorted({item.board_id or NO_BOARD for item in items})
