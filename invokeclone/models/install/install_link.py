"""Installation by link: "use this model" on Hugging Face opens a page that starts the installation."""

from collections.abc import Mapping
from typing import NamedTuple

from invokeclone.kit.errors import InvokeCloneError
from invokeclone.models.install.service import Installer
from invokeclone.models.install.sources.hub import NotARepository, is_repository
from invokeclone.models.records.schemas import ModelRecordChanges


class InstallPage(NamedTuple):
    """Title, text and HTTP status of the page."""

    title: str
    text: str
    status: int


async def accept(installer: Installer, source: str, headers: Mapping[str, str]) -> InstallPage:
    """Start to install a repository; the page's status is 201, 400 if it is invalid, 409 if it is installed."""
    try:
        if not await is_repository(source):
            raise NotARepository(f"{source!r} is not a repository name (owner/name)")
        if _is_cross_site(headers):
            return InstallPage("Not started", "An installation can only be started by following a link.", 400)
        if source in await installer.list_sources():
            return InstallPage("Already installed", f"{source} is installed already.", 409)
        await installer.add(source, ModelRecordChanges())
    except InvokeCloneError as error:
        return InstallPage("Not started", str(error), error.status)
    return InstallPage(
        "Installing", f"{source} is being installed. You can close this page and watch it in the models tab.", 201
    )


def _is_cross_site(headers: Mapping[str, str]) -> bool:
    """Return whether another site's page made the browser send the request, as an image, a frame or a script.

    Over plain HTTP browsers send no `Sec-Fetch-*` headers; there `Upgrade-Insecure-Requests`, which no page can set,
    marks navigations of the user.
    """
    site = headers.get("sec-fetch-site")
    if site is None:
        return headers.get("user-agent", "").startswith("Mozilla/") and "upgrade-insecure-requests" not in headers
    is_other_site = site in ("cross-site", "same-site")
    return is_other_site and (
        headers.get("sec-fetch-mode") != "navigate" or headers.get("sec-fetch-dest") != "document"
    )
