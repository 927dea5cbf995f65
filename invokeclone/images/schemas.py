"""Request and response schemas of images, list filters, and new records."""

from datetime import datetime
from typing import Annotated, Literal, NamedTuple
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr

from invokeclone.graph.vocabulary.taxonomy import ImageCategory, ResourceOrigin
from invokeclone.kit.paging import SQLiteDirection

NO_BOARD = "none"
"""The board id that clients use for no board."""

ImageNames = Annotated[list[Annotated[str, Field(max_length=255)]], Field(max_length=1000)]


def image_url(name: str) -> str:
    """Return the URL of the image file, relative to the server's URL."""
    return f"api/v1/images/i/{quote(name, safe='')}/full"


def thumbnail_url(name: str) -> str:
    """Return the URL of the thumbnail, relative to the server's URL."""
    return f"api/v1/images/i/{quote(name, safe='')}/thumbnail"


class ImageUrlsDTO(BaseModel):
    """The URLs of an image's files."""

    image_name: str
    image_url: str
    thumbnail_url: str


class ImageDTO(BaseModel):
    """An image record with its URLs. Times are UTC text."""

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
    """Changes to an image; absent or null fields are unchanged, unknown keys are ignored."""

    model_config = ConfigDict(extra="allow")

    image_category: ImageCategory | None = None
    session_id: StrictStr | None = None
    is_intermediate: StrictBool | None = None
    starred: StrictBool | None = None


class ImageNamesResult(BaseModel):
    """All names of a list in order; the first `starred_count` images are starred."""

    image_names: list[str]
    starred_count: int
    total_count: int


class DeleteImagesResult(BaseModel):
    """Deleted images and the boards they were on."""

    affected_boards: list[str]
    deleted_images: list[str]
    failed_images: list[str]


class StarredImagesResult(BaseModel):
    """Starred images and their boards."""

    affected_boards: list[str]
    starred_images: list[str]
    failed_images: list[str]


class UnstarredImagesResult(BaseModel):
    """Unstarred images and their boards."""

    affected_boards: list[str]
    unstarred_images: list[str]
    failed_images: list[str]


class WorkflowAndGraphResponse(BaseModel):
    """The workflow and the graph embedded in an image, as JSON text."""

    workflow: str | None
    graph: str | None


class ImageUploadEntry(BaseModel):
    """A presigned upload URL; only in the schema, presigned uploads are not supported."""

    image_dto: ImageDTO
    presigned_url: str


class ImagesDownloaded(BaseModel):
    """The name of a zip file in preparation."""

    response: str | None = None
    bulk_download_item_name: str | None = None


MoveState = Literal["planned", "moving", "moved", "committed", "error"]


class ImageMoveJobResponse(BaseModel):
    """State of a move of all images."""

    id: int
    state: MoveState
    error_message: str | None = None


class ImageMoveStatusResponse(BaseModel):
    """Whether images are being moved, the latest job, and the number of images in the wrong subfolder."""

    is_running: bool
    operation: Literal["move_all", "recovery"] | None = None
    active_job_id: int | None = None
    latest_job: ImageMoveJobResponse | None = None
    last_error: str | None = None
    needs_move_count: int


class ImageFilter(BaseModel, frozen=True):
    """Filter and order of a list of images or videos.

    `board_id` "none" means on no board, None all boards; `owner` None means all owners; `created_date` is a day in UTC,
    `YYYY-MM-DD`; `text_query` is what `search.with_text_query` makes of `search_term`, and `few_found` whether the text
    index finds few enough matches to read a page with it.
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
    """A new record for files that are already written."""

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
    """A new image record."""

    image_name: str
    image_origin: ResourceOrigin
    image_category: ImageCategory
    image_subfolder: str = ""


class ImageLocation(NamedTuple):
    """Name and subfolder, which determine the files of an image."""

    name: str
    subfolder: str


class AffectedItem(NamedTuple):
    """An image changed by a bulk operation, and the board it is (or was) on."""

    location: ImageLocation
    board_id: str | None


class BulkChange(NamedTuple):
    """Items changed by a bulk operation, and the names refused as another user's."""

    items: list[AffectedItem]
    refused: list[str] = []  # noqa: RUF012  (never changed)

    @property
    def names(self) -> list[str]:
        """The names of the changed items."""
        return [item.location.name for item in self.items]

    @property
    def boards(self) -> list[str]:
        """The boards of the changed items."""
        return boards_of(self.items)


def boards_of(items: list[AffectedItem]) -> list[str]:
    """Return the boards of `items`, each once, "none" for items on no board."""
    return sorted({item.board_id or NO_BOARD for item in items})
