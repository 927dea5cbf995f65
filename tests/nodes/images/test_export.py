"""Images as files beside the gallery: where they may go and what is in them."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from invokeclone.graph.invocations.invocation import NodeError
from invokeclone.nodes.images.export import SaveImageToFileInvocation
from tests.applications import sample_image
from tests.fakes_context import FakeContext


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    folder = tmp_path / "outputs"
    folder.mkdir()
    return folder


@pytest.fixture
def context(outputs: Path) -> FakeContext:
    return FakeContext(config=SimpleNamespace(get=lambda: SimpleNamespace(outputs_path=outputs)))


@pytest.mark.parametrize(("kind", "name"), [("png", "PNG"), ("jpg", "JPEG"), ("webp", "WEBP")])
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I", "F"])
def test_gallery_and_file(context: FakeContext, outputs: Path, kind: str, name: str, mode: str) -> None:
    image = context.images.put(sample_image("L").convert(mode))
    node = SaveImageToFileInvocation(image=image, output_directory="a/b", prefix="x-", suffix="-y", file_format=kind)
    saved = node.invoke(context)
    assert saved.image != image
    [path] = [path for path in outputs.rglob("*") if path.is_file()]
    assert path == outputs / "a" / "b" / f"x-{Path(saved.image.image_name).stem}-y.{kind}"
    with Image.open(path) as file_image:
        assert (file_image.format, file_image.size) == (name, (48, 32))
    assert node.use_cache is False


def test_png_is_exact_and_quality_matters(context: FakeContext, outputs: Path) -> None:
    image = context.images.put(sample_image("RGBA", (200, 200)))
    saved = SaveImageToFileInvocation(image=image).invoke(context)
    with Image.open(outputs / saved.image.image_name) as file_image:
        assert file_image.tobytes() == sample_image("RGBA", (200, 200)).tobytes()
    lengths = []
    for quality in (10, 100):
        SaveImageToFileInvocation(
            image=image, file_format="jpg", quality=quality, output_directory=str(quality)
        ).invoke(context)
        [path] = (outputs / str(quality)).iterdir()
        lengths.append(path.stat().st_size)
    assert lengths[0] < lengths[1]


@pytest.mark.parametrize(
    "folder", ["..", "../elsewhere", "/etc", "a/../../b", "..\\elsewhere", ".", "link", "link/below", "a\0b"]
)
def test_folders_outside_the_outputs_folder_are_refused(
    context: FakeContext, outputs: Path, tmp_path: Path, folder: str
) -> None:
    (outputs / "link").symlink_to(tmp_path)
    node = SaveImageToFileInvocation(image=context.images.put(sample_image()), output_directory=folder)
    with pytest.raises(NodeError, match="output_directory"):
        node.invoke(context)
    assert context.images.saved == []
    assert [path.name for path in tmp_path.iterdir()] == ["outputs"]


@pytest.mark.parametrize("folder", ["images", "Images/x", "tensors", "a/../images", "videos"])
def test_folders_reserved_for_the_server_are_refused(context: FakeContext, folder: str) -> None:
    with pytest.raises(NodeError, match="reserved for the server"):
        SaveImageToFileInvocation(image=context.images.put(sample_image()), output_directory=folder).invoke(context)


@pytest.mark.parametrize("name", ["../", "a/b", "a\\b", "C:", "\n", "\0"])
@pytest.mark.parametrize("part", ["prefix", "suffix"])
def test_prefixes_and_suffixes_with_path_characters_are_refused(
    context: FakeContext, outputs: Path, part: str, name: str
) -> None:
    with pytest.raises(NodeError, match="prefix and suffix"):
        SaveImageToFileInvocation(image=context.images.put(sample_image()), **{part: name}).invoke(context)
    assert list(outputs.rglob("*")) == []


def test_existing_files_are_not_overwritten_and_errors_are_reported(context: FakeContext, outputs: Path) -> None:
    image = context.images.put(sample_image())
    (outputs / "1.png").write_bytes(b"mine")
    with pytest.raises(NodeError, match="already"):
        SaveImageToFileInvocation(image=image).invoke(context)
    assert (outputs / "1.png").read_bytes() == b"mine"
    with pytest.raises(NodeError, match="cannot write the file"):
        SaveImageToFileInvocation(image=image, output_directory="1.png/below").invoke(context)
    with pytest.raises(NodeError, match="cannot write the file"):
        SaveImageToFileInvocation(image=image, prefix="x" * 300).invoke(context)
    assert [path.name for path in outputs.iterdir()] == ["1.png"]
