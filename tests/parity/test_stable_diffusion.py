"""InvokeAI's own images of Stable Diffusion 1 and 2 by the same graphs and weights (README.md)."""

from collections.abc import Iterator

import numpy as np
import pytest

from tests.parity import models, running
from tests.parity.running import golden, psnr
from tests.server_process import Server

CASES = running.read_cases("cases.json")
FLOOR = 55.0
"""dB that a case must reach."""
FLOORS = {"sd15-ip-adapter-plus": 25.0}
"""Of cases whose image rounding alone moves further (README.md)."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("parity")
    models.make(folder)
    with running.serve(tmp_path_factory.mktemp("server") / "root", folder) as server:
        yield server


@pytest.fixture(scope="module")
def items(server: Server) -> dict[str, int]:
    return running.enqueue(server, CASES)


@pytest.mark.parametrize("name", CASES)
def test_images_match_the_reference_implementation(name: str, server: Server, items: dict[str, int]) -> None:
    image = running.result(server, items[name])
    assert isinstance(image, np.ndarray), image
    assert psnr(image, golden(name)) >= FLOORS.get(name, FLOOR)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case["unlike"] in CASES])
def test_each_case_differs_from_its_baseline(name: str) -> None:
    assert psnr(golden(name), golden(CASES[name]["unlike"])) < FLOOR
