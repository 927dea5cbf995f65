"""The Dockerfile and its neighbors, as far as they can be checked without a container engine."""

import json
import re
import shlex
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from invokeclone.cli.main import parser

HERE = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((HERE / "pyproject.toml").read_text())
COMPOSE = yaml.safe_load((HERE / "configs" / "compose.yaml").read_text())


class Stage(NamedTuple):
    """One FROM of the Dockerfile and what follows it."""

    name: str
    parent: str
    instructions: list[tuple[str, str]]

    def all(self, instruction: str) -> list[str]:
        return [text for name, text in self.instructions if name == instruction]


def read() -> tuple[dict[str, str], dict[str, Stage]]:
    """Return the arguments before the first FROM, and the stages by name."""
    text = re.sub(r"^#.*\n", "", (HERE / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    arguments: dict[str, str] = {}
    stages: dict[str, Stage] = {}
    current: Stage | None = None
    for line in filter(None, map(str.strip, text.splitlines())):
        name, rest = line.split(maxsplit=1)
        if name == "FROM":
            words = re.fullmatch(r"(\S+) AS (\S+)", rest)
            assert words, line
            parent = re.sub(r"\$\{(\w+)\}", lambda match: arguments[match[1]], words[1])
            current = stages[words[2]] = Stage(words[2], parent, [])
        elif current is None:
            assert name == "ARG", line
            key, _, value = rest.partition("=")
            arguments[key] = value
        else:
            current.instructions.append((name, rest))
    return arguments, stages


STAGES = read()[1]
FINAL = ("cpu", "cuda")


def lineage(name: str) -> Iterator[Stage]:
    """Yield the stage and those that it is built on."""
    while name in STAGES:
        yield STAGES[name]
        name = STAGES[name].parent


def last(stage: str, instruction: str) -> str:
    return next(stages[-1] for instruction_line in lineage(stage) if (stages := instruction_line.all(instruction)))


def build_context(path: str) -> bool:
    """Tell whether .dockerignore lets the file through: the last pattern that matches it, or a folder above it, decides."""
    through = True
    for line in (HERE / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!")
        names = [path, *map(str, Path(path).parents)][:-1] if "/" in path else [path]
        anywhere = pattern.removeprefix("**/")
        matches = any(
            fnmatch(name, pattern) if anywhere == pattern else fnmatch(Path(name).name, anywhere) for name in names
        )
        if matches:
            through = line.startswith("!")
    return through


def files(source: str) -> list[str]:
    """Return the tracked kind of files below a source of COPY: no caches."""
    path = HERE / source
    assert path.exists(), source
    paths = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return [str(file.relative_to(HERE)) for file in paths if "__pycache__" not in file.parts]


def copy_sources() -> Iterator[tuple[str, str, str]]:
    """Yield stage, --from (or nothing) and source of each COPY."""
    for stage in STAGES.values():
        for text in stage.all("COPY"):
            *sources, _target = shlex.split(text)
            origin = sources.pop(0).removeprefix("--from=") if sources[0].startswith("--from=") else ""
            for source in sources:
                yield stage.name, origin, source


def test_every_copy_source_exists_and_is_in_the_build_context() -> None:
    from_context = [source for _stage, origin, source in copy_sources() if not origin]
    assert len(from_context) > 5
    for source in from_context:
        for file in files(source):
            assert build_context(file), file
    assert {origin for _stage, origin, _source in copy_sources() if origin} <= set(STAGES)


@pytest.mark.parametrize(
    "path",
    ["tests/test_docs.py", ".git/config", ".venv/bin/python", "configs/compose.yaml", "invokeclone/__pycache__/x.pyc"],
)
def test_other_files_are_not_in_the_build_context(path: str) -> None:
    assert not build_context(path)


def test_wheel_stage_copies_the_files_needed_by_the_build() -> None:
    sources = {source for stage, origin, source in copy_sources() if stage == "wheel" and not origin}
    project, hatch = PYPROJECT["project"], PYPROJECT["tool"]["hatch"]
    needed = {"pyproject.toml", project["readme"], *project["license-files"]}
    needed |= set(hatch["build"]["targets"]["wheel"]["only-include"])
    assert sources == needed
    assert hatch["version"]["path"].split("/")[0] in sources


def test_every_image_is_pinned_to_a_release_that_the_package_supports() -> None:
    images = {stage.parent for stage in STAGES.values()} - set(STAGES)
    for image in images:
        release = re.fullmatch(r"python:(3\.\d+)\.\d+-slim-[a-z]+", image)
        assert release, image
        assert f"Programming Language :: Python :: {release[1]}" in PYPROJECT["project"]["classifiers"]


@pytest.mark.parametrize("stage", FINAL)
def test_the_images_run_as_a_user_with_git_a_command_and_a_health_check(stage: str) -> None:
    assert last(stage, "USER") == "invoke"
    (commands,) = STAGES["base"].all("RUN")
    assert re.search(r"apt-get install .*\bgit\b", commands)
    assert "useradd" in commands
    assert parser().parse_args(json.loads(last(stage, "CMD"))[1:]).port == int(last(stage, "EXPOSE"))
    assert PYPROJECT["project"]["scripts"].keys() >= {json.loads(last(stage, "CMD"))[0]}


def test_shell_commands_parse() -> None:
    commands = [text for stage in STAGES.values() for text in stage.all("RUN")]
    assert len(commands) == 6
    for text in commands:
        ran = subprocess.run(["sh", "-n", "-c", text], capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_the_health_check_asks_the_server(status: int, healthy: bool) -> None:
    requests: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            """Print nothing."""

    options = last("cpu", "HEALTHCHECK")
    command = json.loads(options[options.index("[") :])
    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.handle_request).start()
        code = command[2].replace(":9090/", f":{server.server_port}/")
        ran = subprocess.run([sys.executable, command[1], code], capture_output=True, check=False)
    assert requests == ["/health"]
    assert (ran.returncode == 0) is healthy


def test_compose_builds_the_targets_of_the_dockerfile() -> None:
    services = COMPOSE["services"]
    assert set(services) == set(FINAL)
    for name, service in services.items():
        assert (HERE / "configs" / service["build"]["context"] / "Dockerfile").resolve() == HERE / "Dockerfile"
        assert service["build"]["target"] == name
        (port,) = service["ports"]
        assert port.startswith("127.0.0.1:")
        assert port.endswith(f":{last(name, 'EXPOSE')}")
        (volume,) = service["volumes"]
        assert volume == f"data:{last(name, 'VOLUME')}"
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
    assert set(COMPOSE["volumes"]) == {"data"}
    assert services["cuda"]["profiles"] == ["cuda"]
