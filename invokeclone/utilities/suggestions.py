"""Suggestions of language models: validates requests, has a worker run the model, and emits how the task ended."""

import secrets
from typing import Any

from invokeclone.graph.vocabulary.taxonomy import ModelType
from invokeclone.images import service as images
from invokeclone.kit.errors import InvokeCloneError, Unavailable
from invokeclone.kit.resources import Resources
from invokeclone.kit.workers import Workers
from invokeclone.models.records import store as models
from invokeclone.users.current import User
from invokeclone.utilities.errors import NoWorker, SuggestionFailed, WrongModel
from invokeclone.utilities.events import LLMTaskCompleteEvent, LLMTaskErrorEvent
from invokeclone.utilities.schemas import (
    HIGHEST_SEED,
    ExpandPromptRequest,
    ExpandPromptResponse,
    ImageToPromptRequest,
    ImageToPromptResponse,
)

TIMEOUT_S = 600.0
REQUEST = "write_text"


async def expand(
    resources: Resources, workers: Workers, user: User, request: ExpandPromptRequest
) -> ExpandPromptResponse:
    """Return an expanded prompt. Raises UnknownModelException, WrongModel, NoWorker, SuggestionFailed."""
    seed = request.seed if request.seed is not None else secrets.randbelow(HIGHEST_SEED + 1)
    await _require(resources, request.model_key, ModelType.TextLLM)
    body = {
        "prompt": request.prompt,
        "system_prompt": request.system_prompt,
        "max_tokens": request.max_tokens,
        "seed": seed,
        "model_key": request.model_key,
    }
    text = await _run_task(resources, workers, user, request.task_id, body)
    return ExpandPromptResponse(expanded_prompt=text, seed=seed)


async def describe(
    resources: Resources, workers: Workers, user: User, request: ImageToPromptRequest
) -> ImageToPromptResponse:
    """Return a description of an image. Raises as `expand` does, and ImageNotFound, ImageNotYours."""
    await _require(resources, request.model_key, ModelType.LlavaOnevision)
    file = await images.file(resources, request.image_name, user=user)
    body = {"image": file.key, "instruction": request.instruction, "model_key": request.model_key}
    return ImageToPromptResponse(prompt=await _run_task(resources, workers, user, request.task_id, body))


async def _require(resources: Resources, key: str, model_type: ModelType) -> None:
    async with resources.database.read() as connection:
        config = await models.get(connection, key)
    if config.type != model_type:
        raise WrongModel(f"{config.name} is a model of type {config.type.value}; required is type {model_type.value}")


async def _run_task(
    resources: Resources, workers: Workers, user: User, task_id: str | None, body: dict[str, Any]
) -> str:
    """Have a worker generate text; emit the outcome if the user gave the task an id."""
    try:
        answer = await _ask_worker(workers, {**body, "task_id": task_id, "user_id": user.user_id})
    except InvokeCloneError as error:
        if task_id is not None:
            resources.events.emit(LLMTaskErrorEvent(task_id=task_id, user_id=user.user_id, error=str(error)))
        raise
    if task_id is not None:
        resources.events.emit(LLMTaskCompleteEvent(task_id=task_id, user_id=user.user_id))
    return answer


async def _ask_worker(workers: Workers, body: dict[str, Any]) -> str:
    try:
        answer = await workers.ask_one(REQUEST, body, TIMEOUT_S)
    except Unavailable as error:
        raise NoWorker(str(error)) from error
    except TimeoutError as error:
        raise SuggestionFailed(f"the model took over {TIMEOUT_S:.0f} s") from error
    if answer.get("error") is not None:
        raise SuggestionFailed(str(answer["error"]))
    return str(answer["text"])
