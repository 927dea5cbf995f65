"""The node that adds noise to an image."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from invokeclone.graph.invocations.invocation import NodeError
from invokeclone.nodes.images import noise
from tests.fakes_context import FakeContext


@pytest.fixture
def context() -> FakeContext:
    return FakeContext()


def run(context: FakeContext, node: Any) -> Image.Image:
    node.invoke(context)
    return context.images.last()


class TestNoise:
    def add_noise(self, context: FakeContext, image: Image.Image, **settings: Any) -> np.ndarray:
        return np.asarray(run(context, noise.ImageNoiseInvocation(image=context.images.put(image), **settings)))

    @pytest.mark.parametrize("kind", ["gaussian", "salt_and_pepper"])
    def test_zero_amount_changes_nothing_and_seeds_are_reproducible(self, context: FakeContext, kind: str) -> None:
        image = Image.new("RGB", (64, 64), (120, 120, 120))
        assert (self.add_noise(context, image, noise_type=kind, amount=0) == 120).all()
        first, again, other = (self.add_noise(context, image, noise_type=kind, seed=seed) for seed in (4, 4, 5))
        assert (first == again).all()
        assert (first != other).any()

    def test_gaussian(self, context: FakeContext) -> None:
        values = self.add_noise(context, Image.new("RGB", (128, 128), (128, 128, 128)), amount=0.1)
        assert values.mean() == pytest.approx(128, abs=1)
        assert values.std() == pytest.approx(25.5, abs=1)
        assert (values[..., 0] != values[..., 1]).any()

    def test_salt_and_pepper(self, context: FakeContext) -> None:
        image = Image.new("RGB", (128, 128), (128, 128, 128))
        values = self.add_noise(context, image, noise_type="salt_and_pepper", amount=0.2)
        assert set(np.unique(values)) == {0, 128, 255}
        assert (values != 128).mean() == pytest.approx(0.2, abs=0.02)
        assert (values == 0).sum() == pytest.approx((values == 255).sum(), rel=0.1)
        assert (self.add_noise(context, image, noise_type="salt_and_pepper", amount=1) != 128).all()

    def test_gray_noise_and_grains(self, context: FakeContext) -> None:
        values = self.add_noise(context, Image.new("RGB", (50, 30), (128,) * 3), noise_color=False, size=7).astype(int)
        assert (values[..., 0] == values[..., 1]).all()
        assert (values[:7, :7] == values[0, 0]).all()
        assert (values[0, 7] != values[0, 6]).any()
        assert values.shape == (30, 50, 3)
        large = self.add_noise(context, Image.new("RGB", (5, 3), (128,) * 3), size=2**40)
        assert (large == large[0, 0]).all()

    def test_mask_and_transparency(self, context: FakeContext) -> None:
        mask = Image.new("L", (40, 20), 255)
        mask.paste(0, (0, 0, 20, 20))
        named = context.images.put(mask)
        values = self.add_noise(context, Image.new("RGBA", (40, 20), (100, 100, 100, 77)), mask=named, amount=0.5)
        assert (values[..., 3] == 77).all()
        assert (values[:, 20:, :3] == 100).all()
        assert (values[:, :20, :3] != 100).mean() > 0.9
        with pytest.raises(NodeError, match="40×20"):
            self.add_noise(context, Image.new("RGB", (4, 4)), mask=named)
