"""The routes that move all images to where the subfolder strategy wants them; for admins."""

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
    """Begin to move all images; the queue must be idle, and stands still until it is done."""
    return await moves.move_all()


@router.post("/recover", status_code=202)
async def start_image_move_recovery(moves: Mover, user: Admin) -> ImageMoveStatusResponse:  # noqa: ARG001
    """Begin to settle what a move left that was cut off; a start of the server does that by itself."""
    return await moves.recover()


@router.get("/status")
async def get_image_move_status(moves: Mover, user: Admin) -> ImageMoveStatusResponse:  # noqa: ARG001
    """Tell what is going on, how the newest move went, and how many images lie elsewhere than they should."""
    return await moves.status()
