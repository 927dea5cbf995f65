"""The fonts folder over HTTP, with fonts made here."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fontTools.fontBuilder import FontBuilder

from invokeclone.kit.resources import Resources
from invokeclone.utilities.api import router
from tests.applications import serving

BASE = "/api/v1/utilities/fonts"


def write_font(path: Path, family: str, weight: int = 400, *, italic: bool = False, flavor: str | None = None) -> None:
    """Write a font without a single letter."""
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef"])
    builder.setupCharacterMap({})
    builder.setupGlyf({".notdef": builder_empty()})
    builder.setupHorizontalMetrics({".notdef": (500, 0)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": family, "styleName": "Regular"})
    builder.setupOS2(usWeightClass=weight, fsSelection=1 if italic else 64)
    builder.setupPost()
    builder.font.flavor = flavor
    path.parent.mkdir(parents=True, exist_ok=True)
    builder.save(path)


def builder_empty() -> object:
    from fontTools.ttLib.tables._g_l_y_f import Glyph

    return Glyph()


@pytest.fixture
def folder(resources: Resources) -> Path:
    return resources.settings.fonts_path


@pytest.fixture
async def client(resources: Resources) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(resources, router) as lent:
        yield lent


async def test_without_a_folder_there_are_no_fonts(client: httpx.AsyncClient) -> None:
    assert (await client.get(BASE)).json() == {"fonts": []}


async def test_font_family_lists_its_faces(client: httpx.AsyncClient, folder: Path) -> None:
    write_font(folder / "b.ttf", "My Family", 700)
    write_font(folder / "a.otf", "My Family", 400, italic=True)
    write_font(folder / "sub dir" / "c.woff2", "My Family", 400, flavor="woff2")
    write_font(folder / "other.woff", "Another", 300, flavor="woff")
    fonts = (await client.get(BASE)).json()["fonts"]
    assert [font["id"] for font in fonts] == ["user:another", "user:my family"]
    url = "api/v1/utilities/fonts/sub%20dir/c.woff2"
    assert fonts[1] == {
        "id": "user:my family",
        "family": "My Family",
        "label": "My Family",
        "path": "sub dir/c.woff2",
        "url": url,
        "faces": [
            {"path": "sub dir/c.woff2", "url": url, "weight": 400, "style": "normal"},
            {"path": "a.otf", "url": "api/v1/utilities/fonts/a.otf", "weight": 400, "style": "italic"},
            {"path": "b.ttf", "url": "api/v1/utilities/fonts/b.ttf", "weight": 700, "style": "normal"},
        ],
    }
    assert (await client.get(f"/{url}")).content == (folder / "sub dir" / "c.woff2").read_bytes()


async def test_invalid_font_file_is_listed_by_file_name(client: httpx.AsyncClient, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "Broken One.ttf").write_bytes(b"\0\1\0\0 nothing")
    (folder / "notes.txt").write_text("x")
    fonts = (await client.get(BASE)).json()["fonts"]
    assert [(font["family"], font["faces"][0]["weight"]) for font in fonts] == [("Broken One", 400)]


async def test_a_changed_file_is_read_again(client: httpx.AsyncClient, folder: Path) -> None:
    write_font(folder / "a.ttf", "Before")
    assert [font["family"] for font in (await client.get(BASE)).json()["fonts"]] == ["Before"]
    write_font(folder / "a.ttf", "And After")
    assert [font["family"] for font in (await client.get(BASE)).json()["fonts"]] == ["And After"]


async def test_font_file_has_its_content_type_and_is_cacheable(client: httpx.AsyncClient, folder: Path) -> None:
    write_font(folder / "a.ttf", "A")
    answer = await client.get(f"{BASE}/a.ttf")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "font/ttf"
    assert answer.headers["content-disposition"] == 'inline; filename="a.ttf"'
    assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert answer.headers["accept-ranges"] == "bytes"
    part = await client.get(f"{BASE}/a.ttf", headers={"range": "bytes=0-3"})
    assert (part.status_code, part.content) == (206, b"\0\1\0\0")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("none.ttf", 404),
        ("sub/none.woff2", 404),
        ("notes.txt", 400),
        ("a", 400),
        ("..%2f..%2fsecret.ttf", 400),
        ("%2e%2e/secret.ttf", 400),
        ("sub/..%2f..%2fsecret.ttf", 400),
        ("%2fetc%2fsecret.ttf", 400),
        ("..%5csecret.ttf", 400),
        ("a%00.ttf", 400),
        ("folder.ttf", 404),
    ],
)
async def test_invalid_font_paths_are_refused(client: httpx.AsyncClient, folder: Path, path: str, status: int) -> None:
    (folder / "folder.ttf").mkdir(parents=True)
    (folder.parent / "secret.ttf").write_text("x")
    assert (await client.get(f"{BASE}/{path}")).status_code == status


async def test_links_are_neither_listed_nor_served(client: httpx.AsyncClient, folder: Path, tmp_path: Path) -> None:
    write_font(tmp_path / "elsewhere" / "secret.ttf", "Secret")
    write_font(folder / "real.ttf", "Real")
    (folder / "file.ttf").symlink_to(tmp_path / "elsewhere" / "secret.ttf")
    (folder / "inside.ttf").symlink_to(folder / "real.ttf")
    (folder / "dir").symlink_to(tmp_path / "elsewhere")
    assert [font["family"] for font in (await client.get(BASE)).json()["fonts"]] == ["Real"]
    for path in ("file.ttf", "inside.ttf", "dir/secret.ttf"):
        assert (await client.get(f"{BASE}/{path}")).status_code in {400, 404}, path
