"""Request and response schemas of style presets and system prompts."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

PLACEHOLDER = "{prompt}"
"""Placeholder for the user's prompt in a preset's template; the client substitutes it."""


class PresetType(StrEnum):
    """Type of a style preset: created by a user or bundled with the application."""

    User = "user"
    Default = "default"
    Project = "project"


class PresetData(BaseModel):
    """The positive and the negative template of a style preset."""

    model_config = ConfigDict(extra="forbid")

    positive_prompt: str = Field(
        description="Template of the positive prompt; `{prompt}` is replaced with the user's prompt."
    )
    negative_prompt: str = Field(description="Template of the negative prompt.")


class StylePresetRecordWithImage(BaseModel):
    """A style preset with the URL of its image."""

    name: str
    preset_data: PresetData
    type: PresetType
    is_public: bool = False
    id: str
    user_id: str
    image: str | None


class PresetForm(BaseModel):
    """A style preset as submitted: the JSON of the form field `data`."""

    name: str = Field(min_length=1)
    positive_prompt: str
    negative_prompt: str
    type: PresetType
    is_public: bool | None = None


class PresetRow(BaseModel):
    """A style preset in an import file."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    name: str = Field(min_length=1)
    positive_prompt: str = Field(default="", validation_alias=AliasChoices("positive_prompt", "prompt"))
    negative_prompt: str = ""


Text = Annotated[str, Field(min_length=1)]


class SystemPromptWithoutId(BaseModel):
    """A system prompt to create."""

    model_config = ConfigDict(extra="forbid")

    name: Text
    content: Text


class SystemPromptChanges(BaseModel):
    """Changes to a system prompt; absent or null fields stay unchanged."""

    model_config = ConfigDict(extra="forbid")

    name: Text | None = None
    content: Text | None = None
    is_public: bool | None = None


class SystemPromptRecordDTO(SystemPromptWithoutId):
    """A system prompt. Times are UTC."""

    id: str
    user_id: str
    is_public: bool
    created_at: datetime
    updated_at: datetime
