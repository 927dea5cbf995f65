"""Which host names and which pages may reach the server: one table, run for HTTP and for both kinds of sockets."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import Response
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from invokeclone.kit.config.settings import Settings
from invokeclone.server.app import create_app
from invokeclone.server.http import origins
from invokeclone.server.sockets import Sockets

PASSES, HOST, ORIGIN = 0, 421, 403
FRIEND = "https://friend.example"
PROXY = "10.0.0.9"


@dataclass(frozen=True)
class Row:
    """Headers of a request, and what becomes of a write and of a socket that send them."""

    verdict: int
    host: str = "127.0.0.1:9090"
    origin: str | None = None
    site: str | None = None
    forwarded: dict[str, str] = field(default_factory=dict)
    client: str = "192.168.1.7"
    scheme: str = "http"

    def headers(self) -> dict[str, str]:
        sent = {"Host": self.host, "Origin": self.origin, "Sec-Fetch-Site": self.site}
        return {**{name: value for name, value in sent.items() if value is not None}, **self.forwarded}


def forward_headers(host: str, proto: str | None = None) -> dict[str, str]:
    return {"X-Forwarded-Host": host, **({"X-Forwarded-Proto": proto} if proto else {})}


TABLE = {
    # Programs send no origin: the name alone counts
    "an address": Row(PASSES),
    "an IPv6 address": Row(PASSES, "[::1]:9090"),
    "an IPv6 address of a link": Row(PASSES, "[fe80::1%eth0]"),
    "localhost": Row(PASSES, "localhost:9090"),
    "localhost with a last dot, in capitals": Row(PASSES, "LocalHost."),
    "below localhost": Row(PASSES, "ui.localhost:9090"),
    "the name of a container": Row(PASSES, "invokeclone:9090"),
    "the host of a container": Row(PASSES, "host.docker.internal:9090"),
    "a name of the local network": Row(PASSES, "workstation.local:9090"),
    "a service of a cluster": Row(PASSES, "invokeclone.default.svc.cluster.local"),
    "this machine's name": Row(PASSES, "box.office.example:9090"),
    "this machine's full name": Row(PASSES, "box.full.office.example:9090"),
    "the configured host": Row(PASSES, "served.example"),
    "an allowed host": Row(PASSES, "ai.example"),
    "an allowed host with another port": Row(PASSES, "AI.example:8443"),
    "an allowed host with letters of another script": Row(PASSES, "xn--bcher-kva.example"),
    "below an allowed host": Row(PASSES, "a.b.many.example"),
    "the parent of allowed hosts": Row(HOST, "many.example"),
    "a foreign name": Row(HOST, "evil.example:9090"),
    "a foreign name with a last dot": Row(HOST, "evil.example."),
    "a foreign name that ends in an allowed one": Row(HOST, "evilai.example"),
    "a foreign name that begins like an address": Row(HOST, "127.0.0.1.evil.example"),
    "no address": Row(HOST, "999.0.0.1"),
    "no name": Row(HOST, "evil.example@localhost"),
    "two names": Row(HOST, "localhost, evil.example"),
    # The rebound page of S3: the browser calls it the same origin
    "rebinding": Row(HOST, "evil.example:9090", "http://evil.example:9090", "same-origin"),
    "rebinding, with headers of a proxy": Row(
        HOST, "evil.example", "http://evil.example", None, forward_headers("localhost"), "127.0.0.1"
    ),
    # Pages
    "own page": Row(PASSES, "192.168.1.5:9090", "http://192.168.1.5:9090"),
    "own page by name": Row(PASSES, "localhost:9090", "http://localhost:9090", "same-origin"),
    "own page over https": Row(PASSES, "ai.example", "https://ai.example", "same-origin", scheme="https"),
    "own page, the port written out": Row(PASSES, "ai.example:443", "https://ai.example", scheme="https"),
    "own page, TLS ends at a silent proxy": Row(PASSES, "ai.example", "https://ai.example"),
    "the http page of an https server": Row(ORIGIN, "ai.example", "http://ai.example", scheme="https"),
    "a foreign page without Sec-Fetch-Site": Row(ORIGIN, "192.168.1.5:9090", "http://evil.example"),
    "a foreign page": Row(ORIGIN, "localhost:9090", "https://evil.example", "cross-site"),
    "a page of another port": Row(ORIGIN, "localhost:9090", "http://localhost:3000", "same-site"),
    "a page of another name of ours": Row(ORIGIN, "127.0.0.1:9090", "http://localhost:9090", "cross-site"),
    "a page of a name that begins like ours": Row(ORIGIN, "ai.example", "https://ai.example.evil.example"),
    "a page without an origin of its own": Row(ORIGIN, "localhost:9090", "null"),
    "the same, by the browser's word": Row(ORIGIN, "localhost:9090", "null", "same-origin"),
    "an empty origin": Row(ORIGIN, "localhost:9090", ""),
    "a scheme alone": Row(ORIGIN, "localhost:9090", "http://"),
    "an origin that is a name": Row(ORIGIN, "localhost:9090", "localhost:9090"),
    "an extension's page": Row(ORIGIN, "localhost:9090", "chrome-extension://localhost:9090", "none"),
    "a foreign page that sends no origin": Row(ORIGIN, "localhost:9090", None, "cross-site"),
    "a neighbor's page that sends no origin": Row(ORIGIN, "localhost:9090", None, "same-site"),
    "what a user opens": Row(PASSES, "localhost:9090", None, "none"),
    "an allowed page": Row(PASSES, "localhost:9090", FRIEND, "cross-site"),
    "an allowed page under a foreign name": Row(HOST, "evil.example", FRIEND),
    # Proxies
    "a proxy that hides the name, https": Row(PASSES, "127.0.0.1:9090", "https://ai.example", "same-origin"),
    "a proxy that hides the name, http": Row(ORIGIN, "127.0.0.1:9090", "http://ai.example"),
    "a proxy that forwards the name": Row(
        PASSES, "upstream:9090", "https://ai.example", None, forward_headers("ai.example", "https"), PROXY
    ),
    "a proxy behind another": Row(
        PASSES, "127.0.0.1:9090", "https://ai.example", None, forward_headers("ai.example, inner"), PROXY
    ),
    "a proxy of a trusted network": Row(
        PASSES, "127.0.0.1:9090", "http://ai.example", None, forward_headers("ai.example"), "172.16.4.4"
    ),
    "nobody's proxy": Row(ORIGIN, "127.0.0.1:9090", "https://ai.example", None, forward_headers("ai.example")),
    "a proxy that forwards a foreign name": Row(
        HOST, "127.0.0.1:9090", "http://evil.example", None, forward_headers("evil.example"), PROXY
    ),
    "a proxy that forwards https, an http page": Row(
        ORIGIN, "ai.example", "http://ai.example", None, forward_headers("ai.example", "https"), PROXY
    ),
}  # fmt: skip


@pytest.fixture
def guarded(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr(origins.socket, "gethostname", lambda: "Box.office.example")
    monkeypatch.setattr(origins.socket, "getfqdn", lambda: "box.full.office.example")
    changes = {
        "host": "served.example",
        "allowed_hosts": ["ai.example", "*.many.example", "bücher.example"],
        "allow_origins": [FRIEND],
        "forwarded_allow_ips": f"{PROXY}, 172.16.0.0/12, 127.0.0.1",
    }
    return settings.model_copy(update=changes)


async def send_through_guard(settings: Settings, row: Row, guard: origins.OwnOrigin | None = None, **scope: Any) -> int:
    """Send one request through the guard; return 0 when it comes out on the other side, else the status."""
    passed: list[str] = []
    sent: list[dict[str, Any]] = []

    async def inner(_scope: Any, _receive: Any, _send: Any) -> None:
        passed.append("passed")

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(name.lower().encode(), value.encode()) for name, value in row.headers().items()]
    whole = {"type": "http", "method": "POST", "path": "/", "headers": headers, "client": (row.client, 5), **scope}
    guard = guard or origins.OwnOrigin(inner, settings)
    guard.app = inner
    await guard({"scheme": row.scheme, **whole}, receive, send)
    return PASSES if passed else sent[0].get("status", 403)


@pytest.mark.parametrize("name", TABLE)
async def test_writes_and_sockets_follow_the_table(guarded: Settings, name: str) -> None:
    row = TABLE[name]
    sockets = {"type": "websocket", "extensions": {"websocket.http.response": {}}}
    ways: tuple[dict[str, Any], ...] = (
        {},
        {"method": "DELETE", "path": "/api/v1/boards/x"},
        {"method": "GET", "path": "/ws/socket.io/"},
        {**sockets, "path": "/ws/socket.io/", "scheme": "wss" if row.scheme == "https" else "ws"},
        {**sockets, "path": "/ws", "scheme": "wss" if row.scheme == "https" else "ws"},
    )
    assert [await send_through_guard(guarded, row, **way) for way in ways] == [row.verdict] * len(ways)


async def test_accepted_requests_do_not_affect_later_ones(guarded: Settings) -> None:
    async def inner(*_: Any) -> None:
        raise AssertionError

    guard = origins.OwnOrigin(inner, guarded)
    for _ in range(2):
        for row in TABLE.values():
            reads = HOST if row.verdict == HOST else PASSES
            assert await send_through_guard(guarded, row, guard, method="GET") == reads
            assert await send_through_guard(guarded, row, guard) == row.verdict


@pytest.mark.parametrize("name", TABLE)
async def test_reads_check_only_the_host_name(guarded: Settings, name: str) -> None:
    verdict = TABLE[name].verdict
    assert await send_through_guard(guarded, TABLE[name], method="GET", path="/api/v1/boards/") == (
        HOST if verdict == HOST else PASSES
    )


async def test_any_host_and_any_origin_can_be_allowed(guarded: Settings) -> None:
    row = Row(PASSES, "evil.example", "https://other.example", "cross-site")
    open_settings = guarded.model_copy(update={"allowed_hosts": ["*"], "allow_origins": ["*"]})
    assert await send_through_guard(open_settings, row) == PASSES


async def test_requests_without_a_host_header_pass(guarded: Settings) -> None:
    assert await send_through_guard(guarded, Row(PASSES, ""), headers=[]) == PASSES


def test_every_rule_is_needed_by_a_table_row(guarded: Settings) -> None:
    """Each rule lets something pass that no other rule does, so none is there for nothing."""
    policy = origins.Policy.of(guarded)
    alone: set[str] = set()
    for row in TABLE.values():
        headers = [(name.lower().encode(), value.encode()) for name, value in row.headers().items()]
        scope = {"type": "http", "headers": headers, "client": (row.client, 5), "scheme": row.scheme}
        sender = origins.sender_of(scope, policy.proxies)
        names = [origins.host_name(authority) or "" for authority in sender.authorities]
        for name in names:
            holding = [rule for rule, holds in origins.HOST_RULES.items() if holds(name, policy)]
            alone |= set(holding) if len(holding) == 1 else set()
        holding = [rule for rule, holds in origins.ORIGIN_RULES.items() if holds(sender, policy)]
        alone |= set(holding) if len(holding) == 1 else set()
    assert alone == set(origins.HOST_RULES) | set(origins.ORIGIN_RULES)


async def test_a_refusal_is_logged_once_with_its_setting(guarded: Settings, logged: list[Any]) -> None:
    async def never(*_: Any) -> None:
        raise AssertionError("passed")

    async def send(_message: Any) -> None:
        pass

    guard = origins.OwnOrigin(never, guarded)
    for host, origin in ((b"evil.example", None), (b"127.0.0.1:9090", b"http://ai.example")):
        headers = [(b"host", host), *([(b"origin", origin)] if origin else [])]
        scope = {"type": "http", "method": "POST", "path": "/", "headers": headers, "client": ("1.2.3.4", 5)}
        for _ in range(3):
            await guard(scope, never, send)
    lines = [record.getMessage() for record in logged]
    assert len(lines) == 2
    assert "allowed_hosts" in lines[0]
    assert "allow_origins" in lines[1]
    assert "Host header" in lines[1]
    for number in range(2 * origins.LOGGED_LIMIT):
        scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"a%d.example" % number)]}
        await guard(scope, never, send)
    assert len(logged) == origins.LOGGED_LIMIT


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[int]:
    """Serve the whole application on a port."""
    app = create_app(settings, worker_command=None)
    config = uvicorn.Config(app, port=0, log_level="error", ws="websockets-sansio", proxy_headers=False)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        await app.services.get(Sockets).close()
        server.should_exit = True
        await task


async def socket_status(port: int, path: str, headers: dict[str, str]) -> int:
    """Open a WebSocket and return 0, or the status that refuses it."""
    sent = {name: value for name, value in headers.items() if name != "Origin"}
    host = sent.pop("Host")
    try:
        async with connect(
            f"ws://{host}{path}",
            host="127.0.0.1",
            port=port,
            origin=headers.get("Origin"),
            additional_headers=sent,
            open_timeout=60,
            proxy=None,
        ):
            return PASSES
    except InvalidStatus as refused:
        return refused.response.status_code


async def test_the_served_application_follows_the_table(guarded: Settings, laid_out: None) -> None:
    """Over real connections: HTTP, socket.io by polling and by WebSocket, ComfyUI's WebSocket."""
    names = (
        "localhost", "a foreign name", "rebinding", "own page by name", "an allowed page", "a proxy that hides the name, http",
        "a foreign page without Sec-Fetch-Site", "a page without an origin of its own",
    )  # fmt: skip
    async with (
        running(guarded.model_copy(update={"host": "127.0.0.1"})) as port,
        httpx.AsyncClient(timeout=60) as client,
    ):
        base = f"http://127.0.0.1:{port}"
        for name in names:
            row = TABLE[name]
            polling = await client.get(f"{base}/ws/socket.io/?EIO=4&transport=polling", headers=row.headers())
            write = await client.post(f"{base}/api/v1/boards/?board_name=x", headers=row.headers())
            assert polling.status_code == (row.verdict or 200), name
            assert write.status_code == (row.verdict or 201), name
            for path in ("/ws/socket.io/?EIO=4&transport=websocket", "/ws", "/comfyui/ws"):
                assert await socket_status(port, path, row.headers()) == row.verdict, (name, path)


async def test_forwarded_headers_are_accepted_only_from_trusted_proxies(guarded: Settings, laid_out: None) -> None:
    """The application reads them itself, behind the guard, which has to see who really sent a request."""
    app = create_app(guarded, worker_command=None)
    origins_of_requests: list[Any] = []

    async def look(request: Request) -> Response:
        origins_of_requests.append((request.client and request.client.host, request.url.scheme))
        return Response()

    app.add_route("/seen", look)
    headers = {"Host": "127.0.0.1", "X-Forwarded-For": "203.0.113.5", "X-Forwarded-Proto": "https"}
    for address in (PROXY, "192.168.1.7"):
        transport = httpx.ASGITransport(app, client=(address, 5))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            assert (await client.get("/seen", headers=headers)).status_code == 200
    assert origins_of_requests == [("203.0.113.5", "https"), ("192.168.1.7", "http")]


def test_reverse_proxy_page_lists_settings_and_private_suffixes() -> None:
    page = (Path(__file__).parent.parent.parent / "docs" / "reverse-proxy.md").read_text()
    for word in ("allowed_hosts", "allow_origins", "forwarded_allow_ips", *origins.PRIVATE_SUFFIXES, "Sec-Fetch-Site"):
        assert f"`{word}" in page, word
