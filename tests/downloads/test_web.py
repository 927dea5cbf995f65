"""What may be asked and what not, redirects, and where tokens go."""

import asyncio
import socket

import pytest

from invokeclone.downloads import addresses, web
from invokeclone.downloads.errors import AccessDenied, AddressRefused, DownloadFailed, TransientError
from invokeclone.downloads.web import WebClient
from invokeclone.kit.config.settings import Settings, URLRegexTokenPair

PRIVATE = [
    "127.0.0.1",
    "127.9.9.9",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "100.100.100.200",
    "0.0.0.0",
    "224.0.0.1",
    "239.255.255.250",
    "255.255.255.255",
    "240.0.0.1",
    "192.0.0.192",
    "192.0.2.1",
    "198.18.0.1",
    "168.63.129.16",
    "::1",
    "::",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
    "fec0::1",
    "2001:db8::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:a9fe:a9fe",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "2002:7f00:1::1",
    "2001:0:7f00:1::80ff:fffe",
]
PUBLIC = ["8.8.8.8", "1.1.1.1", "140.82.112.3", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses(address):
    assert not addresses.is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address):
    assert addresses.is_public(address)


@pytest.mark.parametrize(
    "name",
    [
        "localhost",
        "LOCALHOST.",
        "a.localhost",
        "printer.local",
        "metadata.google.internal",
        "intranet",
        "box.localdomain",
        "nas.lan",
    ],
)
def test_local_names(name):
    assert addresses.is_local_name(name)
    assert not addresses.is_local_name("huggingface.co")


@pytest.fixture
def guarded(settings):
    return settings.model_copy(update={"allow_private_download_urls": False})


@pytest.fixture
async def careful(guarded):
    client = WebClient(guarded)
    yield client
    await client.close()


@pytest.fixture
async def free(settings):
    client = WebClient(settings, initial_retry_delay=0.01)
    yield client
    await client.close()


async def read(session, url, **options):
    async with session.get(url, **options) as response:
        web.check_status(response)
        return await response.read()


def resolving(monkeypatch, names):
    """Let names mean addresses, the first ones at the first time and so on."""
    hosts = []

    async def getaddrinfo(host, port, **_options):
        hosts.append(host)
        if host not in names:
            raise socket.gaierror(-2, "Name or service not known")
        answers = names[host].pop(0) if len(names[host]) > 1 else names[host][0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in answers]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    return hosts


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:{port}/x",
        "http://[::1]:{port}/x",
        "http://[::ffff:127.0.0.1]:{port}/x",
        "http://localhost:{port}/x",
        "http://2130706433:{port}/x",
        "http://127.1:{port}/x",
        "http://0x7f.0.0.1:{port}/x",
        "http://user:pass@127.0.0.1:{port}/x",
        "file:///etc/passwd",
        "ftp://example.com/x",
        "http:///x",
    ],
)
async def test_private_targets_get_no_request(careful, fake_web, url):
    fake_web.page("/x", b"secret")
    with pytest.raises(AddressRefused):
        await read(careful, url.format(port=fake_web.port))
    assert fake_web.asked == []


async def test_names_resolving_to_private_addresses_get_no_request(careful, fake_web, monkeypatch):
    resolving(monkeypatch, {"evil.example": [["127.0.0.1"]]})
    with pytest.raises(AddressRefused, match="not on the public internet"):
        await read(careful, f"http://evil.example:{fake_web.port}/x")
    assert fake_web.asked == []


async def test_dns_rebinding_is_prevented(careful, fake_web, monkeypatch):
    """DNS rebinding: what was resolved is what is connected to, and each socket's address is looked at again."""
    hosts = resolving(monkeypatch, {"evil.example": [["192.0.2.7", "8.8.8.8"], ["127.0.0.1"]]})
    connected = []

    async def connect(_socket, address):
        connected.append(address[0])
        raise ConnectionRefusedError

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", connect)
    with pytest.raises(TransientError):
        await read(careful, f"http://evil.example:{fake_web.port}/x")
    assert (connected, hosts) == (["8.8.8.8"], ["evil.example"])
    with pytest.raises(OSError, match="not on the public internet"):
        web._public_socket((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 80)))
    web._public_socket((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", 80))).close()


async def test_a_redirect_to_a_private_address_is_not_followed(careful, fake_web, monkeypatch):
    fake_web.redirect("/out", f"http://127.0.0.1:{fake_web.port}/secret")
    fake_web.page("/secret", b"secret")
    resolving(monkeypatch, {"public.example": [["8.8.8.8"]]})
    monkeypatch.setattr(web, "_public_socket", socket.socket)

    async def to_fake_web(sock, _address):  # as if the fake web were on the internet
        sock.setblocking(True)
        sock.connect(("127.0.0.1", fake_web.port))
        sock.setblocking(False)

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", to_fake_web)
    monkeypatch.setattr(web, "_public_socket", lambda info: socket.socket(*info[:3]))
    with pytest.raises(AddressRefused):
        await read(careful, f"http://public.example:{fake_web.port}/out")
    assert [path for path, _ in fake_web.asked] == ["/out"]


async def test_unknown_hosts_and_closed_ports(free, monkeypatch):
    resolving(monkeypatch, {})
    with pytest.raises(TransientError, match="no connection to nowhere"):
        await read(free, "http://nowhere.example/x")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(TransientError):
            await read(free, f"http://127.0.0.1:{unused.getsockname()[1]}/x")


async def test_redirects_are_followed_up_to_a_limit(free, fake_web):
    fake_web.page("/end", b"here")
    for number in range(5):
        fake_web.redirect(
            f"/{number}", f"/{number + 1}" if number < 4 else f"{fake_web.url}/end", (301, 302, 303, 307, 308)[number]
        )
    assert await read(free, f"{fake_web.url}/0") == b"here"
    fake_web.redirect("/round", "/round")
    with pytest.raises(DownloadFailed, match="too often"):
        await read(free, f"{fake_web.url}/round")
    assert len(fake_web.asked_for("/round")) == web.MAX_REDIRECTS + 1
    for location in ("", "file:///etc/passwd", "gopher://x", "http://[nonsense"):
        fake_web.redirect("/bad", location)
        with pytest.raises(DownloadFailed if location in {"", "http://[nonsense"} else AddressRefused):
            await read(free, f"{fake_web.url}/bad")


def test_a_redirect_from_https_to_http_is_refused():
    from yarl import URL

    with pytest.raises(AddressRefused, match="https to http"):
        web._redirect_url(URL("https://a.example/x"), "http://a.example/x")
    assert str(web._redirect_url(URL("http://a.example/x/y"), "../z?a=%2F")) == "http://a.example/z?a=%2F"


async def test_tokens_are_sent_only_to_their_host(free, fake_web):
    """Another port is another origin too."""
    fake_web.page("/end", b"here")
    fake_web.redirect("/same", "/end")
    fake_web.redirect("/other", f"http://localhost:{fake_web.port}/end")
    await read(free, f"{fake_web.url}/same", token="t")
    await read(free, f"{fake_web.url}/other", token="t")
    sent = [(path, headers.get("Authorization")) for path, headers in fake_web.asked]
    assert sent == [("/same", "Bearer t"), ("/end", "Bearer t"), ("/other", "Bearer t"), ("/end", None)]


async def test_tokens_with_invalid_characters_are_not_sent(free, fake_web):
    for token in ("a b", "a\r\nX: y", "é", "x" * 5000):
        with pytest.raises(AccessDenied):
            await read(free, f"{fake_web.url}/x", token=token)
    assert fake_web.asked == []


def test_tokens_are_chosen_by_url_pattern(tmp_path):
    pairs = [
        URLRegexTokenPair(url_regex="models.example", token="one"),
        URLRegexTokenPair(url_regex="^https://hub.example/private/", token="two"),
    ]
    client = WebClient(Settings(root=tmp_path, remote_api_tokens=pairs))
    assert client.token_for("https://models.example/a") == "one"
    assert client.token_for("https://hub.example/private/a") == "two"
    assert client.token_for("https://hub.example/a") is None
    assert client.token_for("https://evil.example/?models.example") is None
    assert client.token_for("https://evil.example/models.example/a") is None


async def test_get_json(free, fake_web, monkeypatch):
    fake_web.page("/ok", b'{"a": 1}')
    assert await free.get_json(f"{fake_web.url}/ok") == {"a": 1}
    fake_web.page("/busy", b"[]", statuses=[503, 429])
    assert await free.get_json(f"{fake_web.url}/busy") == []
    fake_web.page("/down", b"[]", statuses=[503] * 9)
    with pytest.raises(DownloadFailed, match="503"):
        await free.get_json(f"{fake_web.url}/down")
    fake_web.page("/not", b"<html>")
    with pytest.raises(DownloadFailed, match="not JSON"):
        await free.get_json(f"{fake_web.url}/not")
    monkeypatch.setattr(web, "MAX_JSON_BYTES", 3)
    with pytest.raises(DownloadFailed, match="too large"):
        await free.get_json(f"{fake_web.url}/ok")
    with pytest.raises(DownloadFailed, match="404"):
        await free.get_json(f"{fake_web.url}/none")


async def test_proxy_is_used_but_private_targets_are_refused(guarded, fake_web, monkeypatch):
    """The operator's own proxy may have a private address; a target that only the proxy can resolve is left to it."""
    client = WebClient(guarded.model_copy(update={"download_proxy": fake_web.url}))
    fake_web.page("/model", b"through")
    resolving(monkeypatch, {"127.0.0.1": [["127.0.0.1"]], "evil.example": [["10.0.0.1"]]})
    assert await read(client, "http://models.example/model") == b"through"
    assert fake_web.asked[0][1]["Host"] == "models.example"
    for url in ("http://evil.example/model", "http://169.254.169.254/model", "http://localhost/model"):
        with pytest.raises(AddressRefused):
            await read(client, url)
    assert len(fake_web.asked) == 1
    await client.close()


def test_logged_urls_contain_no_secrets():
    assert web.without_query("https://a.example/b?token=x#y") == "https://a.example/b"
