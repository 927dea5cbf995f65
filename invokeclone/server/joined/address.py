"""The address of a server, as its users write it."""

import socket
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit, urlunsplit

from invokeclone.kit.errors import BadRequest
from invokeclone.server.joined.protocol import PATH


class BadAddress(BadRequest):
    """The address of the server is not usable."""

    def __init__(self, url: str) -> None:
        super().__init__(f"{url!r} is not the address of a server; an address is such as https://host:9090")


@dataclass(frozen=True)
class ServerAddress:
    """The address of a server as its users write it."""

    url: str

    @property
    def socket_url(self) -> str:
        """The URL of the websocket. Raises BadAddress."""
        try:
            parts = urlsplit(self.url)
            valid = parts.scheme in ("http", "https") and parts.hostname and parts.port is not False
            (parts.hostname or "").encode("idna")  # an invalid name is a ValueError
        except ValueError as error:
            raise BadAddress(self.url) from error
        if not valid or parts.query or parts.fragment:
            raise BadAddress(self.url)
        scheme = "wss" if parts.scheme == "https" else "ws"
        return urlunsplit((scheme, parts.netloc, parts.path.rstrip("/") + PATH, "", ""))

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches the address: its host name leads to nothing but loopback addresses."""
        host = urlsplit(self.url).hostname or ""
        try:
            entries = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except OSError:
            return False  # other machines may know the name
        return all(ip_address(str(entry[4][0]).partition("%")[0]).is_loopback for entry in entries)
