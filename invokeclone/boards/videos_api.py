"""Routes that add videos to boards and remove them: single ones, and in bulk for web UI 6.8.1."""

from typing import Annotated

from fastapi import APIRouter, Body

from invokeclone.boards import service
from invokeclone.boards.errors import ImageNotYours
from invokeclone.boards.schemas import AddVideosToBoardResult, RemoveVideosFromBoardResult, VideoBoardArg
from invokeclone.images.media_kinds import VIDEOS
from invokeclone.images.schemas import NO_BOARD
from invokeclone.images.videos.schemas import VideoNames
from invokeclone.kit.requests import Write
from invokeclone.users.current import CurrentUser

router = APIRouter(prefix="/api/v1")

VideoNamesBody = Annotated[VideoNames, Body(description="The names of the videos.")]


@router.post("/videos/board", tags=["videos"])
async def add_video_to_board(connection: Write, user: CurrentUser, body: VideoBoardArg) -> AddVideosToBoardResult:
    """Move a video to a board."""
    name = body.video_name
    moved = service.single(await service.add(connection, user, body.board_id, [name], VIDEOS), name, VIDEOS)
    return AddVideosToBoardResult(affected_boards=moved.boards, added_videos=moved.names)


@router.delete("/videos/board", tags=["videos"])
async def remove_video_from_board(
    connection: Write,
    user: CurrentUser,
    video_name: Annotated[str, Body(embed=True, description="The name of the video.")],
) -> RemoveVideosFromBoardResult:
    """Remove a video from its board. As in InvokeAI, an unknown name gets the same response as a video on no board."""
    moved = await service.remove(connection, user, [video_name], VIDEOS)
    if moved.refused:
        raise ImageNotYours(video_name)
    return RemoveVideosFromBoardResult(affected_boards=moved.boards or [NO_BOARD], removed_videos=[video_name])


@router.post("/board_videos/batch", status_code=201, tags=["boards"])
async def add_videos_to_board(
    connection: Write,
    user: CurrentUser,
    board_id: Annotated[str, Body(description="The id of the board.")],
    video_ids: VideoNamesBody,
) -> AddVideosToBoardResult:
    """Move several videos to a board."""
    moved = await service.add(connection, user, board_id, video_ids, VIDEOS)
    return AddVideosToBoardResult(affected_boards=moved.boards, added_videos=moved.names)


@router.post("/board_videos/batch/delete", status_code=201, tags=["boards"])
async def remove_videos_from_board(
    connection: Write,
    user: CurrentUser,
    video_ids: Annotated[VideoNames, Body(embed=True, description="The names of the videos.")],
) -> RemoveVideosFromBoardResult:
    """Remove several videos from their boards."""
    moved = await service.remove(connection, user, video_ids, VIDEOS)
    return RemoveVideosFromBoardResult(affected_boards=moved.boards, removed_videos=moved.names)
