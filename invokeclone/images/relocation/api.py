"""Admin routes that move all images to the subfolders of the current strategy."""

from typing import Annotated

from fastapi import APIRouter, Depends

from invokeclone.images.relocation.service import ImageMoves
from invokeclone.images.schemas import ImageMoveStatusResponse
from invokeclone.kit.requests import service
from invokeclone.users.current import Admin

router = APIRouter(prefix="/api/v1/image_moves", tags=["image_moves"])


Mover = Annotated[ImageMoves, Depends(service(ImageMoves))]


@router.post("/start", status_code=202)
async def start_image_move(moves: Mover, user: Admin) -> ImageMoveStatusResponse:  # noqa: ARG001
    """Start moving all images; the queue must be idle, and is paused until the move is done."""
    return await moves.move_all()


@router.post("/recover", status_code=202)
async def start_image_move_recovery(moves: Mover, user: Admin) -> ImageMoveStatusResponse:  # noqa: ARG001
    """Start recovering from an interrupted move; the server also does this at startup."""
    return await moves.recover()


@router.get("/status")
async def get_image_move_status(moves: Mover, user: Admin) -> ImageMoveStatusResponse:  # noqa: ARG001
    """Return the running operation, the state of the latest job, and the number of images in the wrong subfolder."""
    return await moves.status()
