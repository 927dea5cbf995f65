"""Style presets and system prompts as clients read and write them; it knows the form and no SQL."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import AliasChoices, BaseModel, ConfigDict, Field

PLACEHOLDER = "{prompt}"
"""Where in a preset's positive prompt the user's own words go; the client puts them there."""


class PresetType(StrEnum):
    """Whose a style preset is: a user's, or one that comes with the application."""

    User = "user"
    Default = "default"
    Project = "project"


class PresetData(BaseModel):
    """The two templates of a style preset."""

    model_config = ConfigDict(extra="forbid")

    positive_prompt: str = Field(description="What is wanted; `{prompt}` stands for the user's words.")
    negative_prompt: str = Field(description="What is not wanted.")


class StylePresetRecordWithImage(BaseModel):
    """A style preset with the address of its picture."""

    name: str
    preset_data: PresetData
    type: PresetType
    is_public: bool = False
    id: str
    user_id: str
    image: str | None


class PresetForm(BaseModel):
    """A style preset as it is sent: the JSON of the form's field `data`."""

    name: str = Field(min_length=1)
    positive_prompt: str
    negative_prompt: str
    type: PresetType
    is_public: bool | None = None


class PresetRow(BaseModel):
    """A style preset in a file to import."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    name: str = Field(min_length=1)
    positive_prompt: str = Field(default="", validation_alias=AliasChoices("positive_prompt", "prompt"))
    negative_prompt: str = ""


Text = Annotated[str, Field(min_length=1)]


class SystemPromptWithoutId(BaseModel):
    """A system prompt before it has an id."""

    model_config = ConfigDict(extra="forbid")

    name: Text
    content: Text


class SystemPromptChanges(BaseModel):
    """What may be changed of a system prompt; what is absent or null stays as it is."""

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
