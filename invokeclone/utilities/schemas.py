"""What the utilities' routes ask and answer."""

from pydantic import BaseModel, Field

MAX_TOKENS = 2048
HIGHEST_SEED = 2**32 - 1
DESCRIBE = "Describe this image in detail for use as an AI image generation prompt."


class DynamicPromptsResponse(BaseModel):
    """The prompts that a pattern makes."""

    prompts: list[str] = Field(description="The prompts; after an error the pattern itself.")
    error: str | None = Field(default=None, description="Why the pattern could not be expanded.")


class UserFontFace(BaseModel):
    """One file of a family."""

    path: str = Field(description="The file, from the fonts folder on.")
    url: str = Field(description="Where to load it from.")
    weight: int = Field(description="How bold it is, 1 to 1000; 400 is regular.")
    style: str = Field(description="normal or italic.")


class UserFont(BaseModel):
    """A family of fonts in the fonts folder."""

    id: str = Field(description="`user:` and the family's name in small letters.")
    family: str = Field(description="The family's name.")
    label: str = Field(description="What to show for it.")
    path: str = Field(description="The file nearest to regular.")
    url: str = Field(description="Where to load that from.")
    faces: list[UserFontFace] = Field(description="Every file of the family.")


class UserFontsResponse(BaseModel):
    """The families in the fonts folder."""

    fonts: list[UserFont] = Field(description="The families, by name.")


class ExpandPromptRequest(BaseModel):
    """A short prompt to be made longer by a language model."""

    prompt: str = Field(description="The prompt.")
    model_key: str = Field(description="The key of a text_llm model.")
    max_tokens: int = Field(default=300, ge=1, le=MAX_TOKENS, description="Most tokens to write.")
    system_prompt: str | None = Field(default=None, description="What the model is told to be.")
    seed: int | None = Field(default=None, ge=0, le=HIGHEST_SEED, description="Makes the answer repeatable.")
    task_id: str | None = Field(default=None, description="The id under which to send events of the progress.")


class ExpandPromptResponse(BaseModel):
    """The longer prompt."""

    expanded_prompt: str = Field(description="The prompt.")
    seed: int = Field(description="The seed it was made with.")
    error: str | None = Field(default=None, description="Always null: what goes wrong has its own status.")


class ImageToPromptRequest(BaseModel):
    """An image to be put into words."""

    image_name: str = Field(description="The image.")
    model_key: str = Field(description="The key of a llava_onevision model.")
    instruction: str = Field(default=DESCRIBE, description="What to say about it.")
    task_id: str | None = Field(default=None, description="The id under which to send events of the progress.")


class ImageToPromptResponse(BaseModel):
    """What the model said of the image."""

    prompt: str = Field(description="The text.")
    error: str | None = Field(default=None, description="Always null: what goes wrong has its own status.")
