"""Videos as clients read them; it knows the form and neither SQL nor files."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr, model_validator

from invokeclone.graph.vocabulary.taxonomy import ImageCategory, ResourceOrigin
from invokeclone.images.schemas import NewRecord

VideoNames = Annotated[list[Annotated[str, Field(max_length=255)]], Field(max_length=1000)]


class VideoDTO(BaseModel):
    """A video: what it is, where it came from and where it is served. Times are UTC text, the duration seconds."""

    video_name: str
    video_url: str
    thumbnail_url: str
    video_origin: ResourceOrigin
    video_category: ImageCategory
    width: int
    height: int
    duration: float
    fps: float | None = None
    created_at: datetime | str
    updated_at: datetime | str
    deleted_at: datetime | str | None = None
    is_intermediate: bool
    session_id: str | None = None
    node_id: str | None = None
    starred: bool
    has_workflow: bool
    video_subfolder: str = ""
    board_id: str | None = None


class VideoUrlsDTO(BaseModel):
    """Where a video's files are served."""

    video_name: str
    video_url: str
    thumbnail_url: str


class VideoRecordChanges(BaseModel):
    """What may be changed of a video; what is absent or null stays as it is, unknown keys are ignored."""

    model_config = ConfigDict(extra="allow")

    video_category: ImageCategory | None = None
    session_id: StrictStr | None = None
    is_intermediate: StrictBool | None = None
    starred: StrictBool | None = None


class VideoNamesBatch(BaseModel):
    """The names of several videos; 6.8.1 calls them `video_ids`, which is read as well."""

    video_names: VideoNames

    @model_validator(mode="before")
    @classmethod
    def _accept_video_ids(cls, data: Any) -> Any:
        if isinstance(data, dict) and "video_ids" in data and "video_names" not in data:
            return {"video_names": data["video_ids"]}
        return data


class VideoNamesResult(BaseModel):
    """The names of a whole list in its order; the starred ones come first."""

    video_names: list[str]
    starred_count: int
    total_count: int


class VideoIdsResult(BaseModel):
    """The names of a whole list in its order, as 6.8.1 calls them."""

    video_ids: list[str]
    starred_count: int
    total_count: int


class DeleteVideosResult(BaseModel):
    """What was deleted, and from which boards; failed is what is not there or another user's."""

    affected_boards: list[str]
    deleted_videos: list[str]
    failed_videos: list[str]


class StarredVideosResult(BaseModel):
    """What was starred, and on which boards; failed is what is not there or another user's."""

    affected_boards: list[str]
    starred_videos: list[str]
    failed_videos: list[str]


class UnstarredVideosResult(BaseModel):
    """What lost its star, and on which boards; failed is what is not there or another user's."""

    affected_boards: list[str]
    unstarred_videos: list[str]
    failed_videos: list[str]


class NewVideo(NewRecord, frozen=True):
    """The record of a video to be made."""

    video_name: str
    video_origin: ResourceOrigin
    video_category: ImageCategory
    video_subfolder: str = ""
    duration: float
    fps: float | None = None
