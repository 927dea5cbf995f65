"""Routes of system prompts."""

from typing import Annotated, Any

from fastapi import APIRouter, Path

from invokeclone.kit.requests import Needs, Read, Write
from invokeclone.presets import prompts
from invokeclone.presets.schemas import SystemPromptChanges, SystemPromptRecordDTO, SystemPromptWithoutId
from invokeclone.users.current import CurrentUser

router = APIRouter(prefix="/api/v1/system_prompts", tags=["system_prompts"])

PromptId = Annotated[str, Path(description="The id of the system prompt.")]


@router.get("/")
async def list_system_prompts(connection: Read, user: CurrentUser) -> list[SystemPromptRecordDTO]:
    """List the system prompts by name: a user's own and public ones; admins see all."""
    return await prompts.list_prompts(connection, user)


@router.post("/")
async def create_system_prompt(
    needs: Needs, connection: Write, user: CurrentUser, prompt: SystemPromptWithoutId
) -> SystemPromptRecordDTO:
    """Create a system prompt; in multiuser mode it is private until it is made public."""
    return await prompts.create(connection, prompt, user, is_public=not needs.settings.multiuser)


@router.get("/i/{system_prompt_id}")
async def get_system_prompt(connection: Read, user: CurrentUser, system_prompt_id: PromptId) -> SystemPromptRecordDTO:
    """Get a system prompt."""
    return await prompts.get(connection, system_prompt_id, user)


@router.patch("/i/{system_prompt_id}")
async def update_system_prompt(
    connection: Write, user: CurrentUser, system_prompt_id: PromptId, changes: SystemPromptChanges
) -> SystemPromptRecordDTO:
    """Change a system prompt."""
    return await prompts.update_prompt(connection, system_prompt_id, changes, user)


@router.delete("/i/{system_prompt_id}")
async def delete_system_prompt(connection: Write, user: CurrentUser, system_prompt_id: PromptId) -> Any:
    """Delete a system prompt."""
    await prompts.delete_prompt(connection, system_prompt_id, user)
