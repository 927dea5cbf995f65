"""What is known of a model's source before anything is downloaded, as the wire has it."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AnyHttpUrl, BaseModel, Field


class RemoteModelFile(BaseModel):
    """A file that a model's source offers."""

    url: AnyHttpUrl = Field(description="Web address of the file")
    path: Path = Field(description="Where it belongs in the model's folder")
    size: int | None = Field(default=0, description="Bytes")
    sha256: str | None = Field(default=None, description="Checksum")


class BaseMetadata(BaseModel):
    """What is known of a source."""

    name: str = Field(description="Name of the model")
    type: Literal["basemetadata"] = "basemetadata"


class HuggingFaceMetadata(BaseModel):
    """What Hugging Face says of a repository."""

    name: str = Field(description="Name of the model")
    files: list[RemoteModelFile] = Field(default=[], description="Files of the repository")
    type: Literal["huggingface"] = "huggingface"
    id: str = Field(description="Name of the repository")
    api_response: str | None = Field(default=None, description="The answer itself, as JSON")
    is_diffusers: bool = Field(default=False, description="Whether it is a folder as diffusers saves it")
    ckpt_urls: list[AnyHttpUrl] | None = Field(default=None, description="Single-file models in it")


AnyMetadata = Annotated[BaseMetadata | HuggingFaceMetadata, Field(discriminator="type")]
