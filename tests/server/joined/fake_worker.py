"""A worker process that runs nothing: it claims items and finishes each when the file `go` exists in its folder.

Its folder is the environment's JOINED_TEST_FOLDER; the file `notes` there has what it did, the file `say` a message to send.
"""

import itertools
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

folder = Path(os.environ["JOINED_TEST_FOLDER"])
numbers = itertools.count(1)
draining: list[dict[str, Any]] = []


def note(*words: object) -> None:
    with (folder / "notes").open("a") as file:
        file.write(" ".join(map(str, words)) + "\n")


def say(**message: Any) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def call(method: str, **arguments: Any) -> dict[str, Any]:
    number = next(numbers)
    say(kind="call", id=number, method=method, arguments=arguments)
    while True:
        message = hear()
        if message["kind"] == "result" and message["id"] == number:
            return message
        if message["kind"] == "result":
            note(
                "other",
                message["id"],
                "refused" if message.get("refused") else next(iter({"value", "error"} & message.keys())),
            )


def hear() -> dict[str, Any]:
    line = sys.stdin.readline()
    if not line:
        sys.exit(0)
    message: dict[str, Any] = json.loads(line)
    if message["kind"] == "stop":
        note("stop")
        sys.exit(0)
    if message["kind"] == "drain":
        draining.append(message)
    if message["kind"] not in ("result", "wake"):
        note(message["kind"], *(message[key] for key in ("item_id", "keys") if key in message))
    if message["kind"] == "request":
        say(kind="reply", id=message["id"], body={"name": message["name"]}, error=None)
    return message


def run(item: dict[str, Any]) -> None:
    held = {"item_id": item["item_id"], "fence": item["fence"]}
    note("claim", item["item_id"], item["fence"], os.getpid())
    data = {
        name: item[name]
        for name in ("item_id", "queue_id", "batch_id", "session_id", "origin", "destination", "user_id")
    }
    data |= {"invocation": {"id": "a", "type": "joined_test"}, "invocation_source_id": "a"}
    say(kind="event", name="invocation_progress", data={**data, "device": "cuda:0", "message": "half"})
    while not (folder / "go").exists():
        if not call("queue.is_running", **held)["value"]["running"]:
            note("interrupted", item["item_id"])
            break
        time.sleep(0.02)
    rest = ',"results":{"a":"' + 'é\\"' * 100_000 + '"}}'
    result = call("queue.finish", **held, status="completed", session_json=rest, error=None)
    note("finish", item["item_id"], result.get("value", {}).get("finished"), result.get("error"))


hello = json.loads(sys.stdin.readline())
(folder / "hello").write_text(json.dumps(hello))
note("start", os.getpid())
say(kind="ready", device="cpu", pid=os.getpid(), devices=[])
say(kind="heartbeat", item_id=None, received=0, metrics={"invokeclone_node_cache_hits_total": [[["cpu"], [7]]]})
while True:
    for file in folder.glob("say*"):
        say(**json.loads(file.read_text()))
        file.unlink()
    if draining:
        sys.exit(0)
    claimed = call("queue.claim", resident=[]).get("value") or {}
    if claimed.get("item"):
        run(claimed["item"])
    time.sleep(0.02)
