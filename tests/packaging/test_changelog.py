"""The changelog's releases are in order, dated, and older than the version under development."""

import re
from datetime import date
from itertools import pairwise
from pathlib import Path

from packaging.version import Version

from invokeclone.version import __version__

TITLES = re.findall(r"^## (.*)$", (Path(__file__).parents[2] / "CHANGELOG.md").read_text(), re.MULTILINE)


def releases() -> list[tuple[Version, date]]:
    headings = [re.fullmatch(r"\[([0-9.]+)\] - (\d{4}-\d\d-\d\d)", title) for title in TITLES[1:]]
    assert all(headings), TITLES
    return [(Version(title[1]), date.fromisoformat(title[2])) for title in headings if title]


def test_unreleased_changes_come_first_then_releases_newest_first() -> None:
    assert TITLES[0] == "[Unreleased]"
    assert releases()
    for (version, day), (earlier, earlier_day) in pairwise(releases()):
        assert version > earlier
        assert day >= earlier_day


def test_version_is_the_newest_release_or_a_later_development_version() -> None:
    newest, version = releases()[0][0], Version(__version__)
    assert version == newest or (version.is_devrelease and version > newest)
