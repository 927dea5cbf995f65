"""The node that saves images as files in addition to the gallery."""

import io
from pathlib import Path
from typing import Literal

from PIL import Image

from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, NodeError, invocation
from invokeclone.graph.invocations.outputs import ImageOutput
from invokeclone.graph.vocabulary.fields import ImageField, InputField, WithBoard, WithMetadata
from invokeclone.kit.errors import BadRequest
from invokeclone.kit.files.image_modes import convert, visible
from invokeclone.kit.files.storage import safe_join, write_file

FORMATS = {"png": "PNG", "jpg": "JPEG", "webp": "WEBP"}
RESERVED = frozenset({"images", "videos", "tensors", "conditioning", ".bulk_download"})
"""Folders of the outputs that are reserved for the server."""


def folder_for(outputs: Path, relative: str) -> Path:
    """Return the folder `relative` inside `outputs`. Raises NodeError if it is outside or reserved for the server."""
    relative = relative.strip()
    if not relative:
        return outputs.resolve()
    try:
        folder = safe_join(outputs, relative.replace("\\", "/"))
    except BadRequest as error:
        raise NodeError(f"output_directory must be a folder inside the outputs folder, not {relative!r}") from error
    if folder.relative_to(outputs.resolve()).parts[0].lower() in RESERVED:
        raise NodeError(f"output_directory {relative!r} is reserved for the server: choose another folder")
    return folder


def encode_image(image: Image.Image, kind: str, quality: int) -> bytes:
    """Return the encoded file. JPEG drops transparency; PNG ignores the quality."""
    if kind == "jpg":
        image = convert(image, "RGB")
    elif kind == "webp" and image.mode not in {"RGB", "RGBA"}:
        image = visible(image)
    elif kind == "png" and image.mode not in {"1", "L", "LA", "P", "RGB", "RGBA"}:
        image = convert(image, "RGB")
    buffer = io.BytesIO()
    image.save(buffer, FORMATS[kind], **({} if kind == "png" else {"quality": quality}))
    return buffer.getvalue()


@invocation(
    "save_image_to_file",
    title="Save Image (Gallery + File Export)",
    tags=["image", "export", "file", "save"],
    category="image",
    version="1.0.0",
    use_cache=False,
)
class SaveImageToFileInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Save an image to the gallery, and as a file in a folder of the outputs."""

    image: ImageField = InputField(description="The image to save")
    output_directory: str = InputField(default="", description="Folder inside the outputs, created if missing")
    prefix: str = InputField(default="", description="Prefix of the file name")
    suffix: str = InputField(default="", description="Suffix of the file name, before the extension")
    file_format: Literal["png", "jpg", "webp"] = InputField(default="png", description="Format of the file")
    quality: int = InputField(default=95, ge=1, le=100, description="Quality of JPEG and WebP")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Save both; the file is named after the new image.

        Raises NodeError for a folder or name outside the outputs.
        """
        if any(char in "/\\:" or not char.isprintable() for char in self.prefix + self.suffix):
            raise NodeError("prefix and suffix must not contain path separators or control characters")
        folder = folder_for(context.config.get().outputs_path, self.output_directory)
        image = context.images.get_pil(self.image.image_name)
        data = encode_image(image, self.file_format, self.quality)
        saved = context.images.save(image)
        path = folder / f"{self.prefix}{Path(saved.image_name).stem}{self.suffix}.{self.file_format}"
        try:
            if path.exists():
                raise NodeError(f"file already exists: {path.name}")
            write_file(path, data)
        except OSError as error:
            raise NodeError(f"cannot write the file: {error.strerror or error}") from error
        return ImageOutput.build(saved)
