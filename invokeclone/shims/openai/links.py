"""Links to results that need no key; each opens one image for an hour, like OpenAI's own links."""

import time

from fastapi import Request

from invokeclone.kit.errors import NotFound
from invokeclone.kit.resources import Resources
from invokeclone.shims.image_io import MIME, Format
from invokeclone.users import signin, store

LIFETIME_S = 3600
_ALGORITHM = "HS256"
_USE = "image"


class LinkExpired(NotFound):
    """The link is invalid or has expired."""

    def __init__(self) -> None:
        super().__init__("the link is invalid or has expired")


async def make(request: Request, resources: Resources, names: list[str], format: Format) -> list[str]:  # noqa: A002
    """Return a link to each image."""
    import jwt

    async with resources.database.write() as connection:
        secret = await store.secret(connection)
    expires_at = int(time.time()) + LIFETIME_S
    base = str(request.base_url).rstrip("/")
    tokens = [
        jwt.encode({"use": _USE, "image": name, "format": format, "exp": expires_at}, secret, _ALGORITHM)
        for name in names
    ]
    return [f"{base}/v1/images/files/{token}" for token in tokens]


async def read(resources: Resources, token: str) -> tuple[str, Format]:
    """Return the name and the format of a link's image; raises LinkExpired."""
    import jwt

    async with resources.database.read() as connection:
        secret = await signin.read_secret(connection)
    if secret is None:
        raise LinkExpired
    try:
        content = jwt.decode(token, secret, algorithms=[_ALGORITHM], options={"require": ["use", "image", "exp"]})
    except (jwt.InvalidTokenError, UnicodeError) as error:
        raise LinkExpired from error
    if content["use"] != _USE or content.get("format") not in MIME:
        raise LinkExpired
    return str(content["image"]), content["format"]
