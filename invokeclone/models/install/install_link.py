"""Installing by a link: somebody clicks "use this model" at Hugging Face, and a page says what became of it."""

from collections.abc import Mapping
from typing import NamedTuple

from invokeclone.kit.errors import InvokeCloneError
from invokeclone.models.install.service import Installer
from invokeclone.models.install.sources.hub import NotARepository, is_repository
from invokeclone.models.records.schemas import ModelRecordChanges


class InstallPage(NamedTuple):
    """What the page says, and its HTTP status."""

    title: str
    text: str
    status: int


async def accept(installer: Installer, source: str, headers: Mapping[str, str]) -> InstallPage:
    """Begin to install a repository; the page's status is 201, 400 for no repository, 409 for one that is installed."""
    try:
        if not await is_repository(source):
            raise NotARepository(f"{source!r} is not the name of a repository (owner/name)")
        if _is_cross_site(headers):
            return InstallPage("Not begun", "This can only be asked for by following a link.", 400)
        if source in await installer.list_sources():
            return InstallPage("Already installed", f"{source} is installed already.", 409)
        await installer.add(source, ModelRecordChanges())
    except InvokeCloneError as error:
        return InstallPage("Not begun", str(error), error.status)
    return InstallPage(
        "Installing", f"{source} is being installed. You can close this page and watch it in the models tab.", 201
    )


def _is_cross_site(headers: Mapping[str, str]) -> bool:
    """Tell whether a browser says that another site's page made it ask by itself: as a picture, a frame, a script.

    Over plain http browsers send no `Sec-Fetch-*`; there `Upgrade-Insecure-Requests`, which no page can set, marks what the user opens.
    """
    site = headers.get("sec-fetch-site")
    if site is None:
        return headers.get("user-agent", "").startswith("Mozilla/") and "upgrade-insecure-requests" not in headers
    is_other_site = site in ("cross-site", "same-site")
    return is_other_site and (
        headers.get("sec-fetch-mode") != "navigate" or headers.get("sec-fetch-dest") != "document"
    )
