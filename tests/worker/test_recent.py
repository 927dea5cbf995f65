"""Recent pictures: copies, a bound in bytes, only what a PNG gives back exactly."""

from PIL import Image

from invokeclone.worker.recent_images import RecentImages


def test_cached_image_is_returned_as_a_copy() -> None:
    recent = RecentImages(10_000)
    image = Image.new("RGB", (4, 4), "red")
    image.info["dpi"] = (1, 1)
    recent.keep("a.png", image)
    image.putpixel((0, 0), (0, 0, 0))
    got = recent.get("a.png")
    assert got is not None
    assert got.getpixel((0, 0)) == (255, 0, 0)
    assert got.info == {}
    got.putpixel((0, 0), (1, 2, 3))
    again = recent.get("a.png")
    assert again is not None
    assert again.getpixel((0, 0)) == (255, 0, 0)


def test_cache_limit_counts_bytes_and_evicts_the_oldest() -> None:
    recent = RecentImages(4 * 4 * 3 * 2)
    for name in ("a", "b", "c"):
        recent.keep(name, Image.new("RGB", (4, 4)))
        recent.get("a")
    assert recent.get("b") is None
    assert recent.get("a") is not None
    recent.keep("big", Image.new("RGB", (100, 100)))
    assert recent.get("big") is None
    assert recent.get("a") is not None


def test_other_modes_are_not_cached_and_deleted_images_are_removed() -> None:
    recent = RecentImages(10_000)
    recent.keep("f", Image.new("F", (2, 2)))
    assert recent.get("f") is None
    recent.keep("a", Image.new("L", (2, 2)))
    recent.forget(["a", "never heard of"])
    assert recent.get("a") is None
