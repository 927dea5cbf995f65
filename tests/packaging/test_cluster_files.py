"""The files for clusters in configs/: they are YAML, and what they name of invokeclone exists."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from invokeclone.cli.main import parser
from invokeclone.cluster.host import TOKEN_VARIABLE
from invokeclone.kit.config.settings_file import FIELDS
from invokeclone.kit.resources import Resources
from tests.docs.test_references import READ_BY_LIBRARIES

CONFIGS = Path(__file__).parents[2] / "configs"
COMPOSE = yaml.safe_load((CONFIGS / "cluster.compose.yaml").read_text())
KUBERNETES = [
    document
    for name in ("raycluster.yaml", "keda.yaml")
    for document in yaml.safe_load_all((CONFIGS / name).read_text())
]
READ_ELSEWHERE = READ_BY_LIBRARIES | {"AWS_ACCESS_KEY_ID", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"}


def of_invokeclone() -> list[tuple[str, dict[str, Any]]]:
    """Return services and containers that run invokeclone's image."""
    found = [(name, service) for name, service in COMPOSE["services"].items()]

    def visit(value: Any) -> None:
        if isinstance(value, dict):
            found.extend((container["name"], container) for container in value.get("containers", []))
            for below in value.values():
                visit(below)
        elif isinstance(value, list):
            for below in value:
                visit(below)

    visit(KUBERNETES)
    return [(name, service) for name, service in found if "invokeclone" in service["image"]]


SERVICES = of_invokeclone()


def test_the_files_have_the_services() -> None:
    assert [name for name, _ in SERVICES] == [
        "server",
        "worker1",
        "worker2",
        "ray-head",
        "workers",
        "ray-worker",
        "worker",
    ]
    assert set(COMPOSE["services"]) == {"server", "worker1", "worker2", "postgres", "s3", "bucket"}


@pytest.mark.parametrize(("name", "service"), SERVICES, ids=[name for name, _ in SERVICES])
def test_environment_and_command_are_read(name: str, service: dict[str, Any]) -> None:
    variables = service.get("environment") or [entry["name"] for entry in service.get("env", [])]
    for variable in variables:
        known = variable.removeprefix("INVOKEAI_").lower() in FIELDS if variable.startswith("INVOKEAI_") else False
        assert known or variable == TOKEN_VARIABLE or variable in READ_ELSEWHERE, variable
    if command := [*service.get("command", []), *service.get("args", [])]:
        assert command[0] == "invokeclone"
        parser().parse_args(command[1:])


def test_settings_of_the_server_are_valid() -> None:
    environment = COMPOSE["services"]["server"]["environment"]
    assert yaml.safe_load(environment["INVOKEAI_GENERATION_DEVICES"]) == []
    assert environment["INVOKEAI_STORAGE_ENDPOINT"] == "http://s3:9000"
    assert re.fullmatch(
        r"postgresql://\w+:\$\{POSTGRES_PASSWORD:\?\}@postgres:5432/\w+", environment["INVOKEAI_DATABASE_URL"]
    )


def test_services_and_volumes_that_are_named_exist() -> None:
    for name, service in COMPOSE["services"].items():
        assert set(service.get("depends_on", {})) <= set(COMPOSE["services"]), name
        for volume in service.get("volumes", []):
            assert volume.partition(":")[0] in COMPOSE["volumes"], name
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), name
        assert ":" in service["image"]  # a version
    assert COMPOSE["services"]["worker1"]["hostname"] != COMPOSE["services"]["worker2"]["hostname"]


async def test_the_query_counts_waiting_and_running_items(resources: Resources) -> None:
    (trigger,) = next(document for document in KUBERNETES if document["kind"] == "ScaledObject")["spec"]["triggers"]
    columns = "queue_id, batch_id, session_id, status, created_at, updated_at, session"
    for number, status in enumerate(["pending", "in_progress", "completed", "failed", "waiting"]):
        async with resources.database.write() as connection:
            values = f"('default', 'b', 's{number}', '{status}', 'now', 'now', '')"
            await connection.exec_driver_sql(f"INSERT INTO session_queue ({columns}) VALUES {values}")
    assert [tuple(row) for row in await resources.database.fetch(trigger["metadata"]["query"], {})] == [(2,)]
