"""Request and response schemas of videos, and new records."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr, model_validator

from invokeclone.graph.vocabulary.taxonomy import ImageCategory, ResourceOrigin
from invokeclone.images.schemas import NewRecord

VideoNames = Annotated[list[Annotated[str, Field(max_length=255)]], Field(max_length=1000)]


class VideoDTO(BaseModel):
    """A video record with its URLs. Times are UTC text, the duration is in seconds."""

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
    """The URLs of a video's files."""

    video_name: str
    video_url: str
    thumbnail_url: str


class VideoRecordChanges(BaseModel):
    """Changes to a video; absent or null fields are unchanged, unknown keys are ignored."""

    model_config = ConfigDict(extra="allow")

    video_category: ImageCategory | None = None
    session_id: StrictStr | None = None
    is_intermediate: StrictBool | None = None
    starred: StrictBool | None = None


class VideoNamesBatch(BaseModel):
    """The names of several videos; the key `video_ids` of 6.8.1 is accepted as well."""

    video_names: VideoNames

    @model_validator(mode="before")
    @classmethod
    def _accept_video_ids(cls, data: Any) -> Any:
        if isinstance(data, dict) and "video_ids" in data and "video_names" not in data:
            return {"video_names": data["video_ids"]}
        return data


class VideoNamesResult(BaseModel):
    """All names of a list in order; the first `starred_count` videos are starred."""

    video_names: list[str]
    starred_count: int
    total_count: int


class VideoIdsResult(BaseModel):
    """All names of a list in order, under the key of 6.8.1."""

    video_ids: list[str]
    starred_count: int
    total_count: int


class DeleteVideosResult(BaseModel):
    """Deleted videos and the boards they were on; `failed_videos` are missing or another user's."""

    affected_boards: list[str]
    deleted_videos: list[str]
    failed_videos: list[str]


class StarredVideosResult(BaseModel):
    """Starred videos and their boards; `failed_videos` are missing or another user's."""

    affected_boards: list[str]
    starred_videos: list[str]
    failed_videos: list[str]


class UnstarredVideosResult(BaseModel):
    """Unstarred videos and their boards; `failed_videos` are missing or another user's."""

    affected_boards: list[str]
    unstarred_videos: list[str]
    failed_videos: list[str]


class NewVideo(NewRecord, frozen=True):
    """A new video record."""

    video_name: str
    video_origin: ResourceOrigin
    video_category: ImageCategory
    video_subfolder: str = ""
    duration: float
    fps: float | None = None
