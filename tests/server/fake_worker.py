"""A worker that runs nothing: it speaks the link's lines and does what its command line and requests tell it.

Usage: fake_worker.py MODE --device NAME. Modes: good, deaf (ignores stop and SIGTERM), dies (ends after ready), mute (never ready),
shut (closes its end of the link after ready, and lives).
"""

import json
import os
import signal
import sys
from typing import Any

mode, _, device = sys.argv[1], sys.argv[2], sys.argv[3]
log = os.environ.get("FAKE_WORKER_LOG")


def say(**message: Any) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def note(line: str) -> None:
    if log:
        with open(log, "a") as file:
            file.write(line + "\n")


if mode == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
hello = json.loads(sys.stdin.readline())
assert hello["kind"] == "hello"
assert hello["settings"]["root"]
note(f"start {device} {os.getpid()}")
if (strategy := hello["settings"]["image_subfolder_strategy"]) != "flat":
    note(f"hello {strategy} {hello['settings']['generation_devices']}")
if allocator := os.environ.get("PYTORCH_CUDA_ALLOC_CONF"):
    note(f"allocator {allocator}")
real = "cuda:0" if device == "auto" else device
devices = [{"device": "cuda:0", "name": "One"}, {"device": "cuda:1", "name": "Two"}] if real.startswith("cuda") else []
sys.stdout.write("a line that is not JSON\n")
if mode != "mute":
    say(kind="ready", device=real, devices=devices, pid=os.getpid())
if mode == "dies":
    sys.exit(7)
if mode == "shut":
    os.close(1)
    signal.pause()
for line in sys.stdin:
    message = json.loads(line)
    match message["kind"]:
        case "stop":
            if mode == "deaf":
                continue
            note(f"stopped {real}")
            break
        case "wake":
            note(f"wake {real}")
        case "cancel":
            note(f"cancel {real} {message['item_id']}")
        case "settings":
            note(
                f"settings {message['settings']['image_subfolder_strategy']} {message['settings']['generation_devices']}"
            )
        case "images_deleted" | "models_changed":
            note(f"{message['kind']} {','.join(message.get('names') or message.get('keys'))}")
        case "request" if message["name"] == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "request" if message["name"] == "silence":
            pass
        case "request" if message["name"] == "refuse":
            say(kind="reply", id=message["id"], body=None, error="no")
        case "request" if message["name"] == "say":
            if message["body"].get("name"):
                say(kind="event", name=message["body"]["name"], data=message["body"]["data"])
            for extra in message["body"].get("messages", []):
                say(**extra)
            say(kind="reply", id=message["id"], body=None, error=None)
        case "request":
            say(kind="reply", id=message["id"], body={"device": real, "name": message["name"]}, error=None)
while mode == "deaf":
    signal.pause()
