"""Every operation of the OpenAPI document, called with what Hypothesis makes of its schema: never a 5xx, always the declared form.

The seed is fixed and the number of examples small, so that a run takes the same bounded work each time.
"""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance

from tests.server_process import serving

EXAMPLES = 4
GRAPHS = frozenset(
    {
        "/api/v1/queue/{queue_id}/enqueue_batch",  # bodies with a graph: a union of all nodes, see tests/queue and tests/graph
    }
)
NOT_OFFERED = {("POST", "/api/v1/images/"): 501}
"""What the contract knows and every InvokeAI answers in this way: there is no presigned upload."""
TIMES_WITHOUT_ZONE = ("SystemPromptRecordDTO", "UserDTO")
"""Their times come as the reference sends them, without the zone that `date-time` asks for."""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve a root without workers in a process of its own.

    Not in a thread: before 3.11.8 and 3.12.2, two threads that parse Python at once can fail (CPython issue 106905), and
    both Hypothesis and FastAPI do.
    """
    root = tmp_path_factory.mktemp("every") / "root"
    root.mkdir()
    (root / "invokeai.yaml").write_text("schema_version: 4.0.3\ngeneration_devices: []\n")
    with serving(root) as server:
        yield server.url


def call(operation: Any, url: str) -> int:
    """Call one operation with a few examples; return how many."""
    called = 0

    @seed(1)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def run(case: Any) -> None:
        nonlocal called
        called += 1
        response = case.call(base_url=url, timeout=60)
        if response.status_code == NOT_OFFERED.get((case.method, case.path)):
            return
        case.validate_response(response, checks=[not_a_server_error, response_schema_conformance])

    run()
    return called


def test_no_operation_returns_5xx_or_an_undeclared_response(url: str) -> None:
    document = httpx.get(f"{url}/openapi.json", timeout=120).json()
    for name in TIMES_WITHOUT_ZONE:
        for field in document["components"]["schemas"][name]["properties"].values():
            for form in (field, *field.get("anyOf", [])):
                form.pop("format", None)
    schema = schemathesis.openapi.from_dict(document)
    failures: list[str] = []
    uncalled: list[str] = []
    for result in schema.get_all_operations():
        operation = result.ok()  # type: ignore[union-attr] # an invalid schema fails here
        if operation.path in GRAPHS:
            continue
        try:
            if not call(operation, url):
                uncalled.append(operation.label)
        except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001  (every operation is told, not the first alone)
            failures.append(f"{operation.label}: {str(error)[:1500]}")
    assert not failures, f"{len(failures)} operations:\n" + "\n\n".join(failures)
    assert not uncalled
