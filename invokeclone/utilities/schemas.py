"""Request and response schemas of the utilities' routes."""

from pydantic import BaseModel, Field

MAX_TOKENS = 2048
HIGHEST_SEED = 2**32 - 1
DESCRIBE = "Describe this image in detail for use as an AI image generation prompt."


class DynamicPromptsResponse(BaseModel):
    """Prompts expanded from a dynamic prompt."""

    prompts: list[str] = Field(description="The prompts; after an error the input itself.")
    error: str | None = Field(default=None, description="Why the dynamic prompt could not be expanded.")


class UserFontFace(BaseModel):
    """One font file of a family."""

    path: str = Field(description="Path of the file relative to the fonts folder.")
    url: str = Field(description="URL of the file.")
    weight: int = Field(description="Weight, 1 to 1000; 400 is regular.")
    style: str = Field(description="normal or italic.")


class UserFont(BaseModel):
    """A font family in the fonts folder."""

    id: str = Field(description="`user:` and the family's name in lower case.")
    family: str = Field(description="The family's name.")
    label: str = Field(description="Display name.")
    path: str = Field(description="Path of the file closest to regular.")
    url: str = Field(description="URL of that file.")
    faces: list[UserFontFace] = Field(description="All files of the family.")


class UserFontsResponse(BaseModel):
    """The font families in the fonts folder."""

    fonts: list[UserFont] = Field(description="The families, sorted by name.")


class ExpandPromptRequest(BaseModel):
    """A short prompt for a language model to expand."""

    prompt: str = Field(description="The prompt.")
    model_key: str = Field(description="The key of a text_llm model.")
    max_tokens: int = Field(default=300, ge=1, le=MAX_TOKENS, description="Maximum number of tokens to generate.")
    system_prompt: str | None = Field(default=None, description="System prompt for the model.")
    seed: int | None = Field(default=None, ge=0, le=HIGHEST_SEED, description="Random seed.")
    task_id: str | None = Field(default=None, description="The id of the task in progress events.")


class ExpandPromptResponse(BaseModel):
    """The expanded prompt."""

    expanded_prompt: str = Field(description="The expanded prompt.")
    seed: int = Field(description="The random seed that was used.")
    error: str | None = Field(default=None, description="Always null: errors have their own status.")


class ImageToPromptRequest(BaseModel):
    """An image to describe."""

    image_name: str = Field(description="The name of the image.")
    model_key: str = Field(description="The key of a llava_onevision model.")
    instruction: str = Field(default=DESCRIBE, description="Instruction for the model.")
    task_id: str | None = Field(default=None, description="The id of the task in progress events.")


class ImageToPromptResponse(BaseModel):
    """The model's description of the image."""

    prompt: str = Field(description="The description.")
    error: str | None = Field(default=None, description="Always null: errors have their own status.")
