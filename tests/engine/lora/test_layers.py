"""Each kind of change against its definition, written out for single elements."""

import itertools

import pytest
import torch

from invokeclone.engine.lora.layers import UnknownLayer, read_layer


def random_tensor(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape) * 7 + len(shape))
    return torch.randn(shape, generator=generator)


def product(up: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    """Return up · down by its definition."""
    rows, columns = up.shape[0], down.shape[1]
    values = [[sum(up[i, r] * down[r, j] for r in range(len(down))) for j in range(columns)] for i in range(rows)]
    return torch.tensor(values)


def close(actual: torch.Tensor | None, expected: torch.Tensor) -> bool:
    return actual is not None and actual.shape == expected.shape and torch.allclose(actual, expected, atol=1e-5)


LINEAR, CONVOLUTION = random_tensor(6, 8), random_tensor(6, 4, 3, 3)
UP, DOWN = random_tensor(6, 2), random_tensor(2, 8)
ALPHA = torch.tensor(0.5)
"""A quarter of the rank 2."""


class TestLoRA:
    def test_scaled_by_alpha_over_rank(self):
        layer = read_layer({"lora_up.weight": UP, "lora_down.weight": DOWN, "alpha": ALPHA})
        assert close(layer.weight_delta(LINEAR), product(UP, DOWN) * 0.25)
        assert layer.bias_delta() is None

    def test_without_alpha(self):
        layer = read_layer({"lora_up.weight": UP, "lora_down.weight": DOWN})
        assert close(layer.weight_delta(LINEAR), product(UP, DOWN))

    def test_convolution(self):
        up, down = random_tensor(6, 2, 1, 1), random_tensor(2, 4, 3, 3)
        layer = read_layer({"lora_up.weight": up, "lora_down.weight": down})
        picture = random_tensor(1, 4, 5, 5)
        composed = torch.nn.functional.conv2d(torch.nn.functional.conv2d(picture, down), up)
        assert torch.allclose(torch.nn.functional.conv2d(picture, layer.weight_delta(CONVOLUTION)), composed, atol=1e-4)

    def test_convolution_with_a_mid_tensor(self):
        up, mid, down = random_tensor(6, 2, 1, 1), random_tensor(2, 3, 3, 3), random_tensor(3, 4, 1, 1)
        layer = read_layer({"lora_up.weight": up, "lora_mid.weight": mid, "lora_down.weight": down})
        picture, convolve = random_tensor(1, 4, 5, 5), torch.nn.functional.conv2d
        all_three = convolve(convolve(convolve(picture, down), mid), up)
        assert torch.allclose(convolve(picture, layer.weight_delta(CONVOLUTION)), all_three, atol=1e-4)

    def test_unequal_ranks_are_summed_per_piece(self):
        down = random_tensor(4, 8)
        layer = read_layer({"lora_up.weight": UP, "lora_down.weight": down})
        assert close(layer.weight_delta(LINEAR), product(UP, down[:2]) + product(UP, down[2:]))
        up = random_tensor(6, 4)
        layer = read_layer({"lora_up.weight": up, "lora_down.weight": DOWN})
        assert close(layer.weight_delta(LINEAR), product(up[:, :2], DOWN) + product(up[:, 2:], DOWN))

    def test_sparse_bias(self):
        sparse = {"bias_indices": torch.tensor([[1, 4]]), "bias_values": torch.tensor([2.0, 3.0])}
        sparse["bias_size"] = torch.tensor([6])
        layer = read_layer({"lora_up.weight": UP, "lora_down.weight": DOWN, "alpha": ALPHA, **sparse})
        assert close(layer.bias_delta(), torch.tensor([0, 0.5, 0, 0, 0.75, 0]))


class TestLoHa:
    def test_product_is_element_wise(self):
        up, down = random_tensor(6, 3), random_tensor(3, 8)
        layer = read_layer({"hada_w1_a": UP, "hada_w1_b": DOWN, "hada_w2_a": up, "hada_w2_b": down, "alpha": ALPHA})
        expected = product(UP, DOWN) * product(up, down)
        assert close(layer.weight_delta(LINEAR), expected * 0.25)

    def test_tucker_cores(self):
        core, a, b = random_tensor(2, 2, 3, 3), random_tensor(2, 6), random_tensor(2, 4)
        names = {"hada_t1": core, "hada_w1_a": a, "hada_w1_b": b, "hada_t2": core, "hada_w2_a": a, "hada_w2_b": b}
        factor = torch.zeros(6, 4, 3, 3)
        for p, r, k, m in itertools.product(range(6), range(4), range(3), range(3)):
            factor[p, r, k, m] = sum(core[i, j, k, m] * a[i, p] * b[j, r] for i in range(2) for j in range(2))
        assert close(read_layer(names).weight_delta(CONVOLUTION), factor * factor)


class TestLoKr:
    def test_kronecker_product(self):
        first, second = random_tensor(2, 2), random_tensor(3, 4)
        delta = read_layer({"lokr_w1": first, "lokr_w2": second, "alpha": ALPHA}).weight_delta(LINEAR)
        blocks = [[first[i, j] * second for j in range(2)] for i in range(2)]
        assert close(delta, torch.cat([torch.cat(row, dim=1) for row in blocks])), "alpha means nothing without a rank"

    @pytest.mark.parametrize("factored", [{"first"}, {"second"}, {"first", "second"}])
    def test_factored_matrices(self, factored: set[str]):
        first, second = (random_tensor(2, 2), random_tensor(2, 2)), (random_tensor(3, 1), random_tensor(1, 4))
        tensors = {"alpha": ALPHA}
        for number, (name, pair) in enumerate((("first", first), ("second", second)), 1):
            if name in factored:
                tensors |= {f"lokr_w{number}_a": pair[0], f"lokr_w{number}_b": pair[1]}
            else:
                tensors[f"lokr_w{number}"] = pair[0] @ pair[1]
        rank = 2 if "first" in factored else 1
        expected = torch.kron(first[0] @ first[1], second[0] @ second[1])
        assert close(read_layer(tensors).weight_delta(LINEAR), expected * 0.5 / rank)

    def test_convolution_with_a_core(self):
        first, core, a, b = random_tensor(2, 2), random_tensor(2, 2, 3, 3), random_tensor(2, 3), random_tensor(2, 2)
        second = torch.zeros(3, 2, 3, 3)
        for p, r, k, m in itertools.product(range(3), range(2), range(3), range(3)):
            second[p, r, k, m] = sum(core[i, j, k, m] * a[i, p] * b[j, r] for i in range(2) for j in range(2))
        delta = read_layer({"lokr_w1": first, "lokr_t2": core, "lokr_w2_a": a, "lokr_w2_b": b}).weight_delta(
            CONVOLUTION
        )
        blocks = [torch.cat([first[i, j] * second for j in range(2)], dim=1) for i in range(2)]
        assert close(delta, torch.cat(blocks))


class TestDoRA:
    @pytest.mark.parametrize(
        ("name", "shape", "axis"),
        [("dora_scale", (1, 8), 1), ("dora_scale", (6, 1), 0), ("dora_magnitude", (6,), 0)],
    )
    def test_magnitudes_of_rows_or_columns(self, name: str, shape: tuple[int, ...], axis: int):
        magnitude = random_tensor(*shape).abs() + 0.1
        layer = read_layer({"lora_up.weight": UP, "lora_down.weight": DOWN, name: magnitude})
        changed = LINEAR + layer.weight_delta(LINEAR)
        assert torch.allclose(changed.norm(dim=1 - axis), magnitude.flatten(), atol=1e-5)
        directions = torch.nn.functional.cosine_similarity(changed, LINEAR + UP @ DOWN, dim=1 - axis)
        assert torch.allclose(directions, torch.ones_like(directions), atol=1e-5)

    def test_dora_on_loha(self):
        tensors = {"hada_w1_a": UP, "hada_w1_b": DOWN, "hada_w2_a": UP, "hada_w2_b": DOWN}
        changed = LINEAR + read_layer({**tensors, "dora_scale": torch.ones(1, 8)}).weight_delta(LINEAR)
        assert torch.allclose(changed.norm(dim=0), torch.ones(8), atol=1e-5)

    def test_a_zero_column_stays_zero(self):
        weight = LINEAR.clone()
        weight[:, 3] = 0
        down = DOWN.clone()
        down[:, 3] = 0
        layer = read_layer({"lora_up.weight": UP, "lora_down.weight": down, "dora_scale": torch.ones(1, 8)})
        changed = weight + layer.weight_delta(weight)
        assert torch.equal(changed[:, 3], torch.zeros(6))
        assert torch.isfinite(changed).all()


class TestOtherLayerTypes:
    def test_full_differences(self):
        layer = read_layer({"diff": random_tensor(6, 8) * 2, "diff_b": random_tensor(6)})
        assert close(layer.weight_delta(LINEAR), random_tensor(6, 8) * 2)
        assert close(layer.bias_delta(), random_tensor(6))
        only_bias = read_layer({"diff_b": random_tensor(6)})
        assert only_bias.weight_delta(LINEAR) is None

    def test_norm(self):
        layer = read_layer({"w_norm": random_tensor(6), "b_norm": random_tensor(6) * 3})
        assert close(layer.weight_delta(torch.ones(6)), random_tensor(6))
        assert close(layer.bias_delta(), random_tensor(6) * 3)

    @pytest.mark.parametrize(("on_input", "size"), [(True, 8), (False, 6)])
    def test_ia3(self, on_input: bool, size: int):
        factor = random_tensor(size)
        layer = read_layer({"weight": factor, "on_input": torch.tensor(on_input)})
        expected = torch.stack(
            [torch.stack([LINEAR[i, j] * factor[j if on_input else i] for j in range(8)]) for i in range(6)]
        )
        assert close(layer.weight_delta(LINEAR), expected)

    def test_oft_rotates_outputs_and_preserves_norms(self):
        layer = read_layer({"oft_blocks": random_tensor(2, 3, 3)})
        changed = LINEAR + layer.weight_delta(LINEAR)
        for block in (slice(0, 3), slice(3, 6)):
            assert torch.allclose(changed[block].T @ changed[block], LINEAR[block].T @ LINEAR[block], atol=1e-4)
        assert not torch.allclose(changed, LINEAR, atol=0.1)

    def test_oft_is_limited_by_its_constraint(self):
        limited = read_layer({"oft_blocks": random_tensor(2, 3, 3), "alpha": torch.tensor(0.001)}).weight_delta(LINEAR)
        assert limited is not None
        assert 0 < limited.norm() < read_layer({"oft_blocks": random_tensor(2, 3, 3)}).weight_delta(LINEAR).norm() / 50

    def test_unknown_layer_types_are_refused(self):
        with pytest.raises(UnknownLayer, match="glora_a"):
            read_layer({"glora_a": UP, "alpha": ALPHA})


@pytest.mark.parametrize(
    "tensors",
    [
        {"lora_up.weight": random_tensor(5, 2), "lora_down.weight": DOWN},
        {"lora_up.weight": UP, "lora_down.weight": random_tensor(2, 7)},
        {"lora_up.weight": random_tensor(6, 3), "lora_down.weight": DOWN},
        {"hada_w1_a": UP, "hada_w1_b": DOWN, "hada_w2_a": UP, "hada_w2_b": random_tensor(2, 7)},
        {"lokr_w1": random_tensor(2, 2), "lokr_w2": random_tensor(3, 3)},
        {"lora_up.weight": UP, "lora_down.weight": DOWN, "dora_scale": torch.ones(1, 6)},
        {"diff": random_tensor(6, 7)},
        {"weight": random_tensor(7), "on_input": torch.tensor(True)},
        {"oft_blocks": random_tensor(2, 4, 4)},
    ],
)
def test_layers_of_another_shape_do_not_fit(tensors: dict[str, torch.Tensor]):
    assert not read_layer(tensors).fits(LINEAR.shape)
