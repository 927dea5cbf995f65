"""Schemas of the metadata of model sources."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AnyHttpUrl, BaseModel, Field


class RemoteModelFile(BaseModel):
    """A file of a remote source."""

    url: AnyHttpUrl = Field(description="URL of the file")
    path: Path = Field(description="Path of the file in the model's folder")
    size: int | None = Field(default=0, description="Size in bytes")
    sha256: str | None = Field(default=None, description="SHA-256 checksum")


class BaseMetadata(BaseModel):
    """Metadata of a source."""

    name: str = Field(description="Name of the model")
    type: Literal["basemetadata"] = "basemetadata"


class HuggingFaceMetadata(BaseModel):
    """Metadata of a Hugging Face repository."""

    name: str = Field(description="Name of the model")
    files: list[RemoteModelFile] = Field(default=[], description="Files of the repository")
    type: Literal["huggingface"] = "huggingface"
    id: str = Field(description="Name of the repository")
    api_response: str | None = Field(default=None, description="Response of the Hugging Face API, as JSON")
    is_diffusers: bool = Field(default=False, description="Whether the repository is a diffusers pipeline")
    ckpt_urls: list[AnyHttpUrl] | None = Field(default=None, description="URLs of the single-file models")


AnyMetadata = Annotated[BaseMetadata | HuggingFaceMetadata, Field(discriminator="type")]
