"""InvokeAI's own images of transformer families by the same graphs and weights (README.md)."""

from collections.abc import Iterator

import numpy as np
import pytest

from tests.parity import running, transformer_models
from tests.parity.running import golden, psnr
from tests.server_process import Server

pytestmark = pytest.mark.slow
CASES = running.read_cases("transformer_cases.json")
FLOORS = {"sd3": 60.0, "cogview4": 36.0, "flux": 44.0, "flux2": 44.0, "z": 40.0}
"""dB that a family's cases must reach: rounding alone moves images that are computed in bfloat16 by 38 to 52."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("parity")
    transformer_models.make(folder)
    with running.serve(tmp_path_factory.mktemp("server") / "root", folder) as server:
        yield server


@pytest.fixture(scope="module")
def items(server: Server) -> dict[str, int]:
    return running.enqueue(server, CASES)


@pytest.mark.parametrize("name", CASES)
def test_images_match_the_reference_implementation(name: str, server: Server, items: dict[str, int]) -> None:
    image = running.result(server, items[name])
    assert isinstance(image, np.ndarray), image
    assert psnr(image, golden(name)) >= FLOORS[name.partition("-")[0]]


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case["unlike"] in CASES])
def test_each_case_differs_from_its_baseline(name: str) -> None:
    assert psnr(golden(name), golden(CASES[name]["unlike"])) < FLOORS[name.partition("-")[0]]
