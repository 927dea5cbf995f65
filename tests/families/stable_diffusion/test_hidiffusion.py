"""HiDiffusion: sizes of feature maps, self-attention in windows against windows by hand, and that the UNet is left as it was."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn import functional

from invokeclone.engine.loading.files import read_json
from invokeclone.families.stable_diffusion import pipeline
from invokeclone.families.stable_diffusion.conditioning import BasicConditioningInfo, TextConditioning
from invokeclone.families.stable_diffusion.denoiser import UNetCall, UNetDenoiser
from invokeclone.families.stable_diffusion.hidiffusion import TURBO, HiDiffusion, HiDiffusionState, hidiffusion
from invokeclone.families.stable_diffusion.single_files import CONFIGS
from tests.families.stable_diffusion.conftest import CPU, MakeTask
from tests.tiny_models import make_unet, noise_of

SD1 = {
    "block_out_channels": [4, 4, 8, 8],
    "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
    "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
    "layers_per_block": 2,
    "norm_num_groups": 2,
}
SDXL = {
    "block_out_channels": [4, 4, 8],
    "down_block_types": ["DownBlock2D", *["CrossAttnDownBlock2D"] * 2],
    "up_block_types": [*["CrossAttnUpBlock2D"] * 2, "UpBlock2D"],
    "layers_per_block": 2,
    "norm_num_groups": 2,
    "transformer_layers_per_block": [1, 2, 10],
}
SMALL = (32, 24)


@pytest.fixture(scope="module")
def unets() -> dict[str, Any]:
    torch.set_num_threads(1)  # networks this small lose time to threads that wait for each other
    return {"sd1": make_unet(**SD1), "sdxl": make_unet(**SDXL)}


PUBLISHED = {"sd1": "sd1", "sd2": "sd1", "sdxl": "sdxl", "sdxl_refiner": None}
"""The bases whose UNets diffusers builds, and the kind of each."""


@pytest.fixture(scope="module")
def built() -> dict[str, Any]:
    """Build the published UNets without memory for their weights."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    def build(base: str) -> Any:
        return UNet2DConditionModel.from_config(read_json(CONFIGS / base / "unet" / "config.json"))

    with torch.device("meta"):
        return {base: build(base) for base in PUBLISHED}


class TestPublishedUNets:
    """Names of modules against those of the UNets that diffusers builds of the published configurations, without weights."""

    @pytest.mark.parametrize("base", PUBLISHED)
    def test_unet_kind_is_detected_by_its_modules(self, base: str, built: dict[str, Any]):
        names = {name: {path for path, _ in unet.named_modules()} for name, unet in built.items()}
        contained = next((kind for kind in ("sd1", "sdxl") if names[kind] <= names[base]), None)
        assert contained == PUBLISHED[base]
        if contained is None:
            with pytest.raises(ValueError, match=r"Stable Diffusion 1\.5 and Stable Diffusion XL: turn it off"):
                HiDiffusionState(built[base], HiDiffusion(), 0)
        else:
            assert HiDiffusionState(built[base], HiDiffusion(), 0).base == contained

    @pytest.mark.parametrize(("base", "count"), [("sd1", 5), ("sdxl", 10)])
    def test_every_patched_module_exists(self, base: str, count: int, built: dict[str, Any]):
        unet, kind = built[base], HiDiffusionState(built[base], HiDiffusion(), 0).kind
        convolution = unet.get_submodule(f"down_blocks.{kind.convolution}.downsamplers.0.conv")
        assert (convolution.stride, convolution.kernel_size) == ((2, 2), (3, 3))
        pooled = unet.get_submodule(f"down_blocks.{kind.pool}.attentions.0")
        enlarged = unet.get_submodule(f"up_blocks.{kind.unpool}.attentions.1")
        assert pooled.in_channels == enlarged.in_channels
        attentions = [unet.get_submodule(name) for name in kind.windows]
        assert (len(attentions), len(set(kind.windows))) == (count, count)
        assert not any(attention.is_cross_attention for attention in attentions)
        widths = {attention.query_dim for attention in attentions}
        assert widths == {"sd1": {320}, "sdxl": {640}}[base]
        unwindowed = [
            path
            for path, module in unet.named_modules()
            if path.endswith(".attn1") and module.query_dim in widths and path not in kind.windows
        ]
        assert unwindowed == [], "all self-attention at the largest feature maps is done in windows"


def prompt() -> TextConditioning:
    return TextConditioning.of_prompts([(BasicConditioningInfo(noise_of(7, 1, 3, 32)), None)])


def predict(
    unet: Any,
    settings: HiDiffusion | None,
    size: tuple[int, int] = SMALL,
    index: int = 0,
    count: int = 10,
    controls: Any = (),
) -> torch.Tensor:
    state = None if settings is None else HiDiffusionState(unet, settings, 5)
    steering = [*controls, *([state] if state else [])]
    denoiser = UNetDenoiser(unet, controls=steering, index=index, count=count)
    with torch.inference_mode(), hidiffusion(unet, state):
        return denoiser(noise_of(1, 1, 4, *size), torch.tensor(500), prompt())


def sizes_of(unet: Any, run: Callable[[], Any]) -> dict[str, tuple[int, int]]:
    """Return the sizes of what blocks put out, in one run."""
    sizes: dict[str, tuple[int, int]] = {}
    blocks = {
        "convolution": unet.down_blocks[0 if len(unet.down_blocks) == 4 else 1].downsamplers[0],
        "first": unet.down_blocks[1].resnets[1],
        "up": unet.up_blocks[-1],
    }

    def note(name: str) -> Any:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            features = output[0] if isinstance(output, tuple) else output
            sizes[name] = tuple(features.shape[-2:])

        return hook

    handles = [block.register_forward_hook(note(name)) for name, block in blocks.items()]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return sizes


class TestSizes:
    def test_sd1_quarters_until_t1_and_pools_until_t2(self, unets: dict[str, Any]):
        unet, settings = unets["sd1"], HiDiffusion(windows=False, t1=0.7, t2=0.4)
        sizes_by_step = [sizes_of(unet, lambda i=i: predict(unet, settings, index=i)) for i in (0, 3, 4, 6, 7)]
        assert [sizes["convolution"] for sizes in sizes_by_step] == [(8, 6)] * 4 + [(16, 12)]
        assert [sizes["first"] for sizes in sizes_by_step] == [(4, 3), (4, 3), (8, 6), (8, 6), (16, 12)]
        assert {sizes["up"] for sizes in sizes_by_step} == {SMALL}

    def test_sdxl_quarters_and_pools_in_turn(self, unets: dict[str, Any]):
        unet, settings = unets["sdxl"], HiDiffusion(windows=False)
        sizes_by_step = [sizes_of(unet, lambda i=i: predict(unet, settings, index=i)) for i in (0, 1, 3, 4)]
        assert [sizes["convolution"] for sizes in sizes_by_step] == [(4, 3), (4, 3), (4, 3), (8, 6)]
        assert [sizes["first"] for sizes in sizes_by_step] == [(16, 12), (8, 6), (8, 6), (16, 12)]

    @pytest.mark.parametrize(
        ("size", "source", "quarters", "pools"),
        [
            ((128, 128), "", range(8), range(8, 20)),
            ((128, 600), "", range(8), range(8, 20)),
            ((512, 512), "", range(10), range(20)),
            ((128, 128), TURBO, range(0), range(20)),
        ],
    )
    def test_sdxl_step_ranges_of_quarters_and_pools(
        self, unets: dict[str, Any], size: tuple[int, int], source: str, quarters: range, pools: range
    ):
        state = HiDiffusionState(unets["sdxl"], HiDiffusion(source=source, t1=0.4, t2=0.2), 0)
        steps: tuple[list[int], list[int]] = ([], [])
        for index in range(50):
            latents = SimpleNamespace(shape=(1, 4, *size))
            state(SimpleNamespace(latents=latents, index=index, count=50, down=None, mid=None, features=None))
            for flag, indices in zip((state.quarters, state.pools), steps, strict=True):
                if flag:
                    indices.append(index)
        assert steps == (list(quarters), list(pools))

    def test_quartering_is_a_dilated_convolution(self, unets: dict[str, Any]):
        unet, calls = unets["sd1"], []
        convolution = unet.down_blocks[0].downsamplers[0].conv
        handle = convolution.register_forward_hook(lambda _m, inputs, output: calls.append((inputs[0], output)))
        predict(unet, HiDiffusion(windows=False))
        handle.remove()
        ((features, result),) = calls
        with torch.inference_mode():
            expected = functional.conv2d(
                features, convolution.weight, convolution.bias, stride=4, padding=2, dilation=2
            )
        assert torch.equal(result, expected)

    @pytest.mark.parametrize("base", ["sd1", "sdxl"])
    @pytest.mark.parametrize("size", [(33, 29), (40, 17)])
    def test_any_latent_size_is_supported(self, unets: dict[str, Any], base: str, size: tuple[int, int]):
        for index in (0, 1, 9):
            result = predict(unets[base], HiDiffusion(t1=0.6, t2=0.5), size, index)
            assert result.shape[-2:] == size
            assert result.isfinite().all()


class TestWindows:
    @pytest.mark.parametrize("size", [(8, 8), (9, 6)])
    def test_attention_is_computed_per_window(self, unets: dict[str, Any], size: tuple[int, int]):
        """By hand: shifted, cut into four, attended to one by one, put together and shifted back."""
        unet = unets["sd1"]
        attention = unet.down_blocks[0].attentions[0].transformer_blocks[0].attn1
        features, channels = noise_of(3, 2, size[0] * size[1], 4), 4
        rows, columns = -(-size[0] // 2), -(-size[1] // 2)
        draw = float(torch.rand(1, generator=torch.Generator().manual_seed(5)))
        quarters = 0 if draw <= 0.25 else 1 if draw <= 0.5 else 2 if draw <= 0.75 else 3
        assert quarters == 3, "this seed shifts"
        down, right = quarters * (rows // 4), quarters * (columns // 4)
        with torch.inference_mode():
            image = features.transpose(1, 2).reshape(2, channels, *size)
            whole = functional.interpolate(image, size=(2 * rows, 2 * columns), mode="bicubic")
            shifted = whole.roll((-down, -right), (2, 3)) if down else whole
            result = torch.zeros_like(shifted)
            for top in (0, rows):
                for left in (0, columns):
                    window = shifted[..., top : top + rows, left : left + columns]
                    attended = attention(window.flatten(2).transpose(1, 2))
                    placed = attended.transpose(1, 2).reshape(2, channels, rows, columns)
                    result[..., top : top + rows, left : left + columns] = placed
            result = result.roll((down, right), (2, 3)) if down else result
            expected = functional.interpolate(result, size=size, mode="bicubic").flatten(2).transpose(1, 2)
            state = HiDiffusionState(unet, HiDiffusion(), 5)
            latents = torch.zeros(1, 4, *size)
            state(UNetCall(latents, torch.tensor(1), prompt(), 0, 1, size))
            with hidiffusion(unet, state):
                windowed = attention(features)
            plain = attention(features)
        assert torch.allclose(windowed, expected, atol=1e-6)
        assert not torch.allclose(windowed, plain, atol=1e-4)

    def test_window_shifts_depend_on_the_seed(self, unets: dict[str, Any]):
        shifts = [[HiDiffusionState(unets["sd1"], HiDiffusion(), seed).shift() for _ in range(2)] for seed in range(40)]
        assert {shift for pair in shifts for shift in pair} == {0, 1, 2, 3}
        draws = [float(torch.rand(1, generator=torch.Generator().manual_seed(seed))) for seed in range(40)]
        assert [pair[0] for pair in shifts] == [int(draw * 4) for draw in draws]

    @pytest.mark.parametrize("base", ["sd1", "sdxl"])
    def test_only_the_layers_of_the_largest_maps_have_windows(self, unets: dict[str, Any], base: str):
        unet = unets[base]
        state = HiDiffusionState(unet, HiDiffusion(raunet=False), 0)
        with hidiffusion(unet, state):
            patched = [name for name, module in unet.named_modules() if module._forward_pre_hooks]
        assert patched == [name for name in patched if name.endswith(".attn1")]
        blocks = {"sd1": {"down_blocks.0": 2, "up_blocks.3": 3}, "sdxl": {"down_blocks.1": 4, "up_blocks.1": 6}}[base]
        assert {block: sum(name.startswith(block) for name in patched) for block in blocks} == blocks
        assert len(patched) == sum(blocks.values())


class TestTheUNet:
    def test_unet_is_restored_after_an_error(self, unets: dict[str, Any]):
        unet = unets["sd1"]
        plain, upsamplers = predict(unet, None), unet.num_upsamplers
        convolution = unet.down_blocks[0].downsamplers[0].conv

        def fail(*_: Any) -> None:
            raise RuntimeError("out of memory")

        handle = unet.mid_block.register_forward_pre_hook(fail)
        with pytest.raises(RuntimeError, match="out of memory"):
            predict(unet, HiDiffusion())
        handle.remove()
        hooks = [m for m in unet.modules() if m._forward_hooks or m._forward_pre_hooks]
        assert (hooks, unet.num_upsamplers) == ([], upsamplers)
        assert (convolution.stride, convolution.padding, convolution.dilation) == ((2, 2), (1, 1), (1, 1))
        assert torch.equal(predict(unet, None), plain)

    @pytest.mark.parametrize("settings", [HiDiffusion(), HiDiffusion(raunet=False), HiDiffusion(windows=False)])
    def test_each_part_has_an_effect(self, unets: dict[str, Any], settings: HiDiffusion):
        for unet in unets.values():
            assert not torch.allclose(predict(unet, settings), predict(unet, None), atol=1e-4)

    def test_disabled_features_leave_the_unet_plain(self, unets: dict[str, Any]):
        for unet in unets.values():
            assert torch.equal(predict(unet, HiDiffusion(raunet=False, windows=False)), predict(unet, None))

    @pytest.mark.parametrize(
        "changes", [{}, {**SD1, "layers_per_block": 1}, {**SDXL, "transformer_layers_per_block": 1}]
    )
    def test_other_unets_are_refused(self, changes: dict[str, Any]):
        with pytest.raises(ValueError, match=r"the UNets of Stable Diffusion 1.5 and Stable Diffusion XL: turn it off"):
            HiDiffusionState(make_unet(**changes), HiDiffusion(), 0)


class TestOtherControls:
    @pytest.mark.parametrize("base", ["sd1", "sdxl"])
    def test_residuals_are_resized(self, unets: dict[str, Any], base: str):
        """Residuals of the sizes that a ControlNet makes, which knows nothing of HiDiffusion."""
        unet = unets[base]
        shapes: list[torch.Size] = []
        for block in unet.down_blocks:
            block.register_forward_hook(lambda _m, _i, output: shapes.extend(map_.shape for map_ in output[1]))
        first = noise_of(1, 1, unet.config.block_out_channels[0], *SMALL).shape
        predict(unet, None)
        for block in unet.down_blocks:
            block._forward_hooks.clear()
        plain_shapes = [first, *shapes]
        down = [torch.ones(shape) for shape in plain_shapes]

        def control(call: UNetCall) -> None:
            call.add_residuals(down, torch.ones_like(down[-1]))

        for index in (0, 2, 9):
            settings = HiDiffusion(windows=False, t2=0.3)
            result = predict(unet, settings, index=index, controls=[control])
            assert not torch.allclose(result, predict(unet, settings, index=index), atol=1e-4)

    @pytest.mark.parametrize("base", ["sd1", "sdxl"])
    def test_features_are_resized(self, unets: dict[str, Any], base: str):
        """Features of the sizes that a T2I-Adapter makes: those of the blocks of a UNet without HiDiffusion."""
        unet = unets[base]
        height, width = SMALL
        levels = {"sd1": (1, 2, 4, 8), "sdxl": (2, 2, 4)}[base]
        channels = unet.config.block_out_channels
        features = [torch.ones(1, c, height // n, width // n) for c, n in zip(channels, levels, strict=True)]
        for index in (0, 2, 9):
            settings = HiDiffusion(windows=False, t2=0.3)
            result = predict(unet, settings, index=index, controls=[lambda call: call.add_features(features)])
            assert result.isfinite().all()
            assert not torch.allclose(result, predict(unet, settings, index=index), atol=1e-4)

    def test_batch_rows_match_single_runs(self, unets: dict[str, Any], make_task: MakeTask):
        rows = [noise_of(seed, 1, 4, 16, 16) for seed in (1, 2)]
        settings = HiDiffusion(t2=0.3)

        def run(noise: torch.Tensor, **changes: Any) -> torch.Tensor:
            seeds = (3,) * len(noise)
            task = make_task(noise=noise, seeds=seeds, hidiffusion=settings, **changes)
            return pipeline.denoise(unets["sd1"], task, CPU, [].append)

        single = [run(row) for row in rows]
        assert torch.allclose(run(torch.cat(rows)), torch.cat(single), atol=1e-4)
        plain = pipeline.denoise(unets["sd1"], make_task(noise=rows[0]), CPU, [].append)
        assert not torch.allclose(single[0], plain, atol=1e-3)
