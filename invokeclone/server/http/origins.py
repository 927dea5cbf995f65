"""Host and origin checks for HTTP and WebSockets: protection against DNS rebinding and cross-site requests.

A page of another site can make a browser send requests to this server. Two headers distinguish it from the user's own
page:

* Host. A page whose domain resolves to this machine (DNS rebinding) is "same origin" for the browser, but the request
  carries the page's host name. Only names that match HOST_RULES are accepted.
* Origin. Browsers send the page's origin with every request that may change something, and with every WebSocket. Only
  origins that match ORIGIN_RULES are accepted.

Programs other than browsers send neither a foreign host name nor an origin, and pass. A proxy's forwarded headers count
if the proxy's address is in `forwarded_allow_ips`.
"""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from invokeclone.kit import log
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.process.offload import in_thread
from invokeclone.server.http.errors import answer
from invokeclone.shims import routers as shims

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
SOCKETS = "/ws/"
"""Path prefix of socket.io, whose polling requests all need an accepted origin."""
PRIVATE_SUFFIXES = (".localhost", ".local", ".internal", ".home.arpa")
"""Suffixes that the public DNS never resolves (RFC 6761, RFC 6762, ICANN 2024, RFC 8375), so no foreign page has them."""
AUTHORITY = re.compile(r"(?P<host>\[[0-9A-Fa-f:.%a-z]+\]|[^\s\[\]/@:,]+)(:(?P<port>[0-9]{1,5}))?")
DEFAULT_PORTS = {"http": "80", "https": "443"}
LOGGED_LIMIT = 100
"""Maximum number of distinct refusals that are logged, each once."""
MISDIRECTED = 421
FORBIDDEN = 403
DECISIVE = frozenset({b"host", b"origin", b"sec-fetch-site", b"x-forwarded-host", b"x-forwarded-proto"})
"""The headers that the rules read."""
REMEMBERED = 1000
"""Maximum number of accepted senders that are cached."""

_log = log.get("server.origins")


@dataclass(frozen=True)
class Policy:
    """The settings that the rules read."""

    allowed_hosts: frozenset[str]
    allow_origins: frozenset[str]
    own_host: str
    machine: frozenset[str]
    """This machine's host names, in lower case."""
    proxies: "Addresses"

    @classmethod
    def of(cls, settings: Settings) -> "Policy":
        """Return the policy of `settings`; the machine's FQDN is added later, when needed."""
        return cls(
            frozenset(host_name(entry) or entry for entry in settings.allowed_hosts),
            frozenset(origin.lower().rstrip("/") for origin in settings.allow_origins),
            host_name(settings.host) or "",
            frozenset({socket.gethostname().lower()}),
            Addresses(settings.forwarded_allow_ips),
        )


@dataclass(frozen=True)
class Sender:
    """The properties of a request that identify its sender."""

    authorities: tuple[str, ...]
    """`Host`, and the hosts forwarded by a trusted proxy: name or address, with an optional port."""
    origin: str | None
    fetch_site: str
    """`Sec-Fetch-Site`, which browsers send over https and to localhost only; pages cannot set it."""
    is_https: bool


class Addresses:
    """A list of IP addresses and networks as in `forwarded_allow_ips`; `*` matches all."""

    def __init__(self, text: str) -> None:
        """Parse comma-separated entries; those that are not IP addresses are compared as text."""
        entries = {entry.strip() for entry in text.split(",") if entry.strip()}
        self._all = "*" in entries
        self._texts = frozenset(entries)
        self._networks = tuple(network for entry in entries if (network := _network(entry)) is not None)

    def __contains__(self, text: str) -> bool:
        """Return whether an address is in the list."""
        if self._all or text in self._texts:
            return True
        address = _address(text)
        return address is not None and any(address in network for network in self._networks)


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def host_name(authority: str) -> str | None:
    """Return the host of an authority in lower case, without brackets, port and trailing dot; None if invalid."""
    address = _address(authority.strip())
    match = AUTHORITY.fullmatch(authority.strip())
    if address is None and match is None:
        return None
    name = str(address) if match is None else match["host"]
    return _ascii(name.strip("[]").lower().removesuffix("."))


def _ascii(name: str) -> str:
    """Return an internationalized name in its IDNA encoding."""
    try:
        return name if name.isascii() else name.encode("idna").decode()
    except UnicodeError:
        return name


# A host or origin is accepted if any rule matches.

HostRule = Callable[[str, Policy], bool]
OriginRule = Callable[[Sender, Policy], bool]

HOST_RULES: dict[str, HostRule] = {
    "an address": lambda name, _: _address(name) is not None,
    "a name without a dot, which the public DNS does not answer": lambda name, _: "." not in name,
    "a name that is private by its ending": lambda name, _: name.endswith(PRIVATE_SUFFIXES),
    "this machine's name": lambda name, policy: name in policy.machine,
    "the name in `host`": lambda name, policy: name == policy.own_host,
    "a name in `allowed_hosts`": lambda name, policy: any(_matches(name, entry) for entry in policy.allowed_hosts),
}

ORIGIN_RULES: dict[str, OriginRule] = {
    "no browser": lambda sender, _: sender.origin is None and sender.fetch_site in ("", "none"),
    "an origin in `allow_origins`": lambda sender, policy: _is_listed(sender.origin, policy.allow_origins),
    "the server's own origin": lambda sender, _: _is_own(sender),
    "same origin, per the browser": lambda sender, _: sender.fetch_site == "same-origin" and sender.origin != "null",
}


def _matches(name: str, entry: str) -> bool:
    if entry.startswith("*."):
        return name.endswith(entry[1:])
    return entry in ("*", name)


def _is_listed(origin: str | None, allowed: frozenset[str]) -> bool:
    return "*" in allowed or (origin is not None and origin.lower() in allowed)


def _is_own(sender: Sender) -> bool:
    """Return whether the origin is the host that the request was sent to.

    Behind a TLS proxy without forwarded headers the request appears as http: then both schemes are accepted. For https
    requests an http origin is not accepted, as it may have been tampered with in transit.
    """
    scheme, _, authority = (sender.origin or "").lower().partition("://")
    if scheme not in DEFAULT_PORTS or (sender.is_https and scheme == "http"):
        return False
    return any(_same(authority, host.lower(), DEFAULT_PORTS[scheme]) for host in sender.authorities)


def _same(left: str, right: str, port: str) -> bool:
    return bool(left) and left.removesuffix(f":{port}") == right.removesuffix(f":{port}")


def find_refused_host(sender: Sender, policy: Policy) -> str | None:
    """Return the first host that no rule accepts; None if all are accepted."""
    for authority in sender.authorities:
        name = host_name(authority)
        if name is None or not any(rule(name, policy) for rule in HOST_RULES.values()):
            return authority
    return None


def is_refused_origin(sender: Sender, policy: Policy) -> bool:
    """Return whether no rule accepts the origin."""
    return not any(rule(sender, policy) for rule in ORIGIN_RULES.values())


def sender_of(scope: Scope, proxies: Addresses) -> Sender:
    """Return the sender of a request; forwarded headers are read if they come from a trusted proxy."""
    headers = Headers(scope=scope)
    client = scope.get("client") or ("", 0)
    is_proxied = client[0] in proxies
    hosts = [host.strip() for host in headers.getlist("host") if host.strip()]
    scheme = scope.get("scheme", "http")
    if is_proxied:
        hosts += [
            host.strip() for line in headers.getlist("x-forwarded-host") for host in line.split(",") if host.strip()
        ]
        scheme = headers.get("x-forwarded-proto", scheme).split(",")[0].strip()
    return Sender(
        tuple(dict.fromkeys(hosts)),
        headers.get("origin"),
        headers.get("sec-fetch-site", ""),
        scheme.lower() in ("https", "wss"),
    )


class OwnOrigin:
    """Responds with 421 to foreign host names, and with 403 to writes and sockets of foreign pages.

    Must run outside of uvicorn's proxy header middleware, which replaces the client address.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self._policy = Policy.of(settings)
        self._passed: set[tuple[object, ...]] = set()
        self._logged: set[str] = set()
        self._lock = asyncio.Lock()
        self._is_complete = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or call the application."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        key = _key(scope)
        if key in self._passed:
            await self.app(scope, receive, send)
            return
        sender = sender_of(scope, self._policy.proxies)
        host = find_refused_host(sender, self._policy)
        if host is not None:
            host = find_refused_host(sender, await self._complete_policy())
        if host is not None:
            await self._refuse(scope, receive, send, MISDIRECTED, _foreign_host(host))
        elif _needs_own_origin(scope) and is_refused_origin(sender, self._policy):
            await self._refuse(scope, receive, send, FORBIDDEN, _foreign_origin(sender))
        else:
            self._remember(key)
            await self.app(scope, receive, send)

    def _remember(self, key: tuple[object, ...]) -> None:
        if len(self._passed) >= REMEMBERED:
            self._passed.clear()
        self._passed.add(key)

    async def _complete_policy(self) -> Policy:
        """Return the policy with this machine's FQDN, read only for an unknown host, as it may need a DNS query."""
        async with self._lock:
            if not self._is_complete:
                full_name = (await in_thread(socket.getfqdn)).lower()
                self._policy = replace(self._policy, machine=self._policy.machine | {full_name})
                self._is_complete = True
        return self._policy

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, status: int, message: str) -> None:
        if message not in self._logged and len(self._logged) < LOGGED_LIMIT:
            self._logged.add(message)
            _log.warning("refused a request (logged once): %s", message)
        response = shims.render_error(scope["path"], status, message) or answer(status, message)
        if scope["type"] == "websocket":
            await _deny(scope, receive, send, response)
        else:
            await response(scope, receive, send)


def _needs_own_origin(scope: Scope) -> bool:
    return (
        scope["type"] == "websocket" or scope["method"] not in SAFE_METHODS or scope.get("path", "").startswith(SOCKETS)
    )


def _key(scope: Scope) -> tuple[object, ...]:
    """Return the cache key of a decision: all request properties that it depends on."""
    client = scope.get("client")
    decisive = [tuple(header) for header in scope["headers"] if header[0] in DECISIVE]
    return (client[0] if client else "", scope.get("scheme"), _needs_own_origin(scope), *decisive)


def _foreign_host(host: str) -> str:
    name = (host_name(host) or host)[:200]
    return f"{name!r} is not a host name of this server; to use it, add it to allowed_hosts in invokeai.yaml"


def _foreign_origin(sender: Sender) -> str:
    if sender.origin is None:
        return "a page of another site sent this request"
    return (
        f"a page of {sender.origin[:200]!r} sent this request, but this server's host is"
        f" {', '.join(sender.authorities)[:400] or 'unknown'}; make the proxy forward the Host header, or add the origin to"
        " allow_origins in invokeai.yaml"
    )


async def _deny(scope: Scope, receive: Receive, send: Send, response: Response) -> None:
    """Reject a WebSocket handshake with `response`, or close the socket if the server does not support that."""
    await receive()  # websocket.connect
    if "websocket.http.response" in scope.get("extensions", {}):
        await response(scope, receive, send)
    else:
        await send({"type": "websocket.close", "code": 1008})
