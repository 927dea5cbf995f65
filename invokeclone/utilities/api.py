"""Routes for dynamic prompts, suggestions of language models, and the user's fonts."""

from typing import Annotated

from fastapi import APIRouter, Body, Depends, Path
from starlette.responses import FileResponse, Response

from invokeclone.kit.config.limits import check_prompt
from invokeclone.kit.errors import Unprocessable
from invokeclone.kit.process.offload import in_thread
from invokeclone.kit.requests import Needs, NeedsWorkers, service
from invokeclone.users.current import CurrentUser
from invokeclone.utilities import fonts, suggestions
from invokeclone.utilities.prompts import PromptExpander
from invokeclone.utilities.schemas import (
    DynamicPromptsResponse,
    ExpandPromptRequest,
    ExpandPromptResponse,
    ImageToPromptRequest,
    ImageToPromptResponse,
    UserFontsResponse,
)

FOREVER = "private, max-age=31536000, immutable"

router = APIRouter(prefix="/api/v1/utilities", tags=["utilities"])


@router.post("/dynamicprompts")
async def parse_dynamicprompts(
    expander: Annotated[PromptExpander, Depends(service(PromptExpander))],
    needs: Needs,
    _user: CurrentUser,
    prompt: Annotated[str, Body(description="The dynamic prompt, such as {red|green} apple.")],
    max_prompts: Annotated[int, Body(ge=1, le=10_000, description="Maximum number of prompts.")] = 1_000,
    combinatorial: Annotated[
        bool, Body(description="Whether to enumerate the combinations in order instead of sampling at random.")
    ] = True,
    seed: Annotated[int | None, Body(description="Random seed.")] = None,
) -> DynamicPromptsResponse:
    """Expand a dynamic prompt."""
    limits = needs.settings.limits
    check_prompt(prompt, limits, "the dynamic prompt")
    if max_prompts > limits.dynamic_prompts:
        raise Unprocessable(
            f"max_prompts is {max_prompts}, more than {limits.dynamic_prompts} (setting limits.dynamic_prompts)"
        )
    return await expander.expand(prompt, max_prompts, seed, combinatorial=combinatorial)


@router.post("/expand-prompt")
async def expand_prompt(
    needs: Needs, workers: NeedsWorkers, user: CurrentUser, request: ExpandPromptRequest
) -> ExpandPromptResponse:
    """Expand a prompt with a language model."""
    check_prompt(request.prompt, needs.settings.limits)
    check_prompt(request.system_prompt or "", needs.settings.limits, "the system prompt")
    return await suggestions.expand(needs, workers, user, request)


@router.post("/image-to-prompt")
async def image_to_prompt(
    needs: Needs, workers: NeedsWorkers, user: CurrentUser, request: ImageToPromptRequest
) -> ImageToPromptResponse:
    """Describe an image with a vision language model."""
    check_prompt(request.instruction, needs.settings.limits, "the instruction")
    return await suggestions.describe(needs, workers, user, request)


@router.get("/fonts")
async def list_user_fonts(needs: Needs, _user: CurrentUser) -> UserFontsResponse:
    """List the font families in the fonts folder."""
    return await in_thread(fonts.families, needs.settings.fonts_path)


@router.get("/fonts/{font_path:path}")
async def get_user_font_file(
    needs: Needs,
    _user: CurrentUser,
    font_path: Annotated[str, Path(description="Path of the file relative to the fonts folder.")],
) -> Response:
    """Get a font file."""
    file, media_type = await in_thread(fonts.find, needs.settings.fonts_path, font_path)
    return FileResponse(
        file,
        media_type=media_type,
        filename=file.name,
        content_disposition_type="inline",
        headers={"Cache-Control": FOREVER},
    )
