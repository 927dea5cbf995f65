"""The link: lines in both directions, never blocking the sender, surviving a reader that is gone."""

import logging
import os
import threading
from types import SimpleNamespace

import orjson
import pytest

from invokeclone.worker import link as link_module
from invokeclone.worker.link import LineReader, LineWriter, ServerLink


def read_all(descriptor: int) -> list[dict[str, object]]:
    """Read JSON lines to the end of the pipe."""
    with os.fdopen(descriptor, "rb") as file:
        return [orjson.loads(line) for line in file]


def test_lines_arrive_in_order_from_many_threads() -> None:
    incoming, outgoing = os.pipe()
    writer = LineWriter(outgoing)
    got: list[dict[str, object]] = []
    reading = threading.Thread(target=lambda: got.extend(read_all(incoming)))
    reading.start()

    def send(number: int) -> None:
        for index in range(500):
            writer.send(orjson.dumps({"thread": number, "index": index, "text": "x" * 200}))

    threads = [threading.Thread(target=send, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert writer.flush(10)
    writer.close(10)
    os.close(outgoing)
    reading.join()
    assert len(got) == 2000
    for number in range(4):
        assert [line["index"] for line in got if line["thread"] == number] == list(range(500))


def test_stalled_reader_does_not_block_and_loses_only_droppable_lines() -> None:
    incoming, outgoing = os.pipe()
    writer = LineWriter(outgoing)
    line = b'"' + b"x" * (1024 * 1024) + b'"'
    for _ in range(80):
        writer.send(line, droppable=True)
    writer.send(b'"kept"')
    assert not writer.flush(0.05)
    got: list[dict[str, object]] = []
    reading = threading.Thread(target=lambda: got.extend(read_all(incoming)))
    reading.start()
    writer.close(10)
    os.close(outgoing)
    reading.join()
    assert got[-1] == "kept"
    assert 30 <= len(got) < 60


def test_closed_server_pipe_is_no_error() -> None:
    incoming, outgoing = os.pipe()
    os.close(incoming)
    writer = LineWriter(outgoing)
    for _ in range(10):
        writer.send(b"{}")
    assert writer.flush(5)
    writer.close(5)
    os.close(outgoing)


def test_messages_have_the_form_the_server_expects() -> None:
    incoming, outgoing = os.pipe()
    writer = LineWriter(outgoing)
    link = ServerLink(writer)
    link.ready("cpu", [{"device": "cpu", "name": "CPU"}])
    link.heartbeat(3)
    link.reply(7, {"size": 1})
    link.reply(8, error="no")
    link.event("invocation_started", b'{"item_id":3}')
    link.report_stop("why")
    writer.close(5)
    os.close(outgoing)
    ready, beat, reply, failure, event, stopped = read_all(incoming)
    assert ready == {
        "kind": "ready",
        "pid": os.getpid(),
        "device": "cpu",
        "devices": [{"device": "cpu", "name": "CPU"}],
    }
    assert beat == {"kind": "heartbeat", "item_id": 3, "received": 0}
    assert reply == {"kind": "reply", "id": 7, "body": {"size": 1}, "error": None}
    assert failure == {"kind": "reply", "id": 8, "body": None, "error": "no"}
    assert event == {"kind": "event", "name": "invocation_started", "data": {"item_id": 3}}
    assert stopped == {"kind": "stopped", "reason": "why"}


def test_reader_forwards_messages_skips_invalid_lines_and_signals_the_end() -> None:
    incoming, outgoing = os.pipe()
    reader = LineReader(incoming)
    os.write(outgoing, b'{"kind":"hello"}\nnot json\n{"kind":"wake"}\n')
    assert reader.first() == {"kind": "hello"}
    got: list[dict[str, object]] = []
    ended = threading.Event()
    reader.start(got.append, ended.set)
    os.write(outgoing, b'{"kind":"cancel","item_id":1}\n')
    os.close(outgoing)
    assert ended.wait(5)
    assert got == [{"kind": "wake"}, {"kind": "cancel", "item_id": 1}]


def test_closed_pipe_without_hello_returns_none() -> None:
    incoming, outgoing = os.pipe()
    os.close(outgoing)
    assert LineReader(incoming).first() is None
    os.close(incoming)


def test_messages_that_are_too_large_are_left_out_or_an_error(
    monkeypatch: pytest.MonkeyPatch, logged: list[logging.LogRecord]
) -> None:
    monkeypatch.setattr(link_module, "MAX_MESSAGE", 1024**2)
    lines: list[bytes] = []
    server = ServerLink(SimpleNamespace(send=lambda line, droppable=False: lines.append(line)))  # type: ignore[arg-type]
    server.event("invocation_complete", b'"%b"' % (b"x" * 2 * 1024**2))
    server.reply(1, "x" * 2 * 1024**2)
    server.reply(2, "x")
    assert [record.getMessage() for record in logged] == [
        "the event invocation_complete has 2 MiB, and at most 1 MiB can be sent: it is left out"
    ]
    replies = [orjson.loads(line) for line in lines]
    assert [(reply["id"], reply["body"], reply["error"]) for reply in replies] == [
        (1, None, "the reply has 2 MiB, and at most 1 MiB can be sent"),
        (2, "x", None),
    ]
