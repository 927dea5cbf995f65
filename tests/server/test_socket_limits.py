"""How many sockets of socket.io there are, and how many rooms one is in."""

from types import SimpleNamespace
from typing import Any

import pytest
from socketio.exceptions import ConnectionRefusedError as Refused

from invokeclone.kit.config.limits import Limits
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.sql.database import Database
from invokeclone.server.sockets import Sockets, queue_room


@pytest.fixture
def sockets(settings: Settings, database: Database) -> Sockets:
    return Sockets(settings.model_copy(update={"limits": Limits(sockets=2, socket_rooms=3)}), database)


async def test_number_of_sockets_is_limited(sockets: Sockets, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets._server, "enter_room", _nothing)
    monkeypatch.setattr(sockets._server.eio, "sockets", {"a": 1, "b": 2})
    await sockets._connect("s", {})
    monkeypatch.setattr(sockets._server.eio, "sockets", {"a": 1, "b": 2, "c": 3})
    with pytest.raises(Refused) as refused:
        await sockets._connect("s", {})
    assert "limits.sockets" in str(refused.value.error_args)


async def test_number_of_rooms_per_socket_is_limited(sockets: Sockets, monkeypatch: pytest.MonkeyPatch) -> None:
    rooms: list[str] = ["own"]

    async def enter(_sid: str, room: str) -> None:
        rooms.append(room)

    monkeypatch.setattr(sockets, "_server", SimpleNamespace(rooms=lambda _sid: rooms, enter_room=enter))
    subscribe: Any = sockets._subscriber("queue_id", queue_room)
    for name in "abcd":
        await subscribe("s", {"queue_id": name})
    assert rooms == ["own", "queue:a", "queue:b"], "limits.socket_rooms is 3"


async def _nothing(*_arguments: Any, **_options: Any) -> None:
    pass
