"""ControlNets, IP-Adapters, Redux, regions and position scaling of FLUX.1."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxControlNetModel, FluxControlNetPipeline
from diffusers.pipelines.flux.modeling_flux import ReduxImageEncoder
from safetensors.torch import save_file
from torch.nn import functional

from invokeclone.components.flux.regions import PromptRegion
from invokeclone.components.flux.tokens import pack, unpack
from invokeclone.families.flux import pipeline, redux
from invokeclone.families.flux.conditioning import FluxConditioning, build_conditioning
from invokeclone.families.flux.controlnet import FluxControlNet, load_controlnet_file
from invokeclone.families.flux.ip_adapter import FluxImagePrompt, load_ip_adapter
from invokeclone.families.flux.pipeline import FluxDenoiseTask
from invokeclone.families.flux.position_scaling import dynamic_positions
from invokeclone.families.flux.tokens import positions, rotary_table
from tests.families.flux.test_pipeline import (
    CPU,
    HEIGHT,
    WIDTH,
    assert_close,
    image_of,
    levels_of,
    noise_of,
    run,
    side,
    task_of,
)
from tests.tiny_flux import TRANSFORMER, original_names

Text = Callable[[int], tuple[torch.Tensor, torch.Tensor]]
BLOCKS = (2, 2)


def make_controlnet(**changes: Any) -> Any:
    torch.manual_seed(3)
    net = FluxControlNetModel(**{**TRANSFORMER, "num_layers": 1, "num_single_layers": 1, **changes}).eval()
    for parameter in net.parameters():  # the library starts with zeros, which change nothing
        parameter.data = torch.randn_like(parameter) * 0.1
    return net


def expected_latents(transformer: Any, vae: Any, net: Any, text: Any, **arguments: Any) -> torch.Tensor:
    made = FluxControlNetPipeline(
        FlowMatchEulerDiscreteScheduler(shift=1.0), vae, None, None, None, None, transformer, net
    )
    made.set_progress_bar_config(disable=True)
    packed = made(
        prompt_embeds=text[0], pooled_prompt_embeds=text[1], latents=pack(noise_of(1)), sigmas=levels_of()[:-1],
        num_inference_steps=4, guidance_scale=3.5, width=WIDTH, height=HEIGHT, output_type="latent",
        return_dict=False, generator=torch.Generator().manual_seed(0), **arguments,
    )[0]  # fmt: skip
    return unpack(packed, HEIGHT // 8, WIDTH // 8)


def encoded(vae: Any, image: torch.Tensor) -> torch.Tensor:
    from invokeclone.components.autoencoders import vae as autoencoder

    return pack(autoencoder.encode(vae, image, CPU))


def test_instantx_matches_diffusers(flux_transformer: Any, flux_vae: Any, flux_text: Text) -> None:
    net, image = make_controlnet(), image_of(5)
    expected = expected_latents(
        flux_transformer, flux_vae, net, flux_text(1), control_image=image, controlnet_conditioning_scale=0.7
    )
    control = FluxControlNet(net, encoded(flux_vae, image), BLOCKS, 0.7)
    assert_close(run(flux_transformer, task_of(flux_text, controls=[control])), expected)


def test_a_mode_of_a_union_model(flux_transformer: Any, flux_vae: Any, flux_text: Text) -> None:
    net, image = make_controlnet(num_mode=4), image_of(5)
    expected = expected_latents(flux_transformer, flux_vae, net, flux_text(1), control_image=image, control_mode=2)
    tokens = encoded(flux_vae, image)
    latents = run(flux_transformer, task_of(flux_text, controls=[FluxControlNet(net, tokens, BLOCKS, mode=2)]))
    assert_close(latents, expected)
    none = run(flux_transformer, task_of(flux_text, controls=[FluxControlNet(net, tokens, BLOCKS)]))
    assert not torch.allclose(none, latents)
    with pytest.raises(ValueError, match="modes 0 to 3"):
        run(flux_transformer, task_of(flux_text, controls=[FluxControlNet(net, tokens, BLOCKS, mode=4)]))


def test_xlabs_matches_diffusers(flux_transformer: Any, flux_vae: Any, flux_text: Text) -> None:
    changes = {"num_single_layers": 0, "conditioning_embedding_channels": 16, "patch_size": 2}
    net, image = make_controlnet(**changes), image_of(5)
    expected = expected_latents(
        flux_transformer, flux_vae, net, flux_text(1), control_image=image, controlnet_conditioning_scale=0.9
    )
    control = FluxControlNet(net, image, BLOCKS, 0.9)
    assert_close(run(flux_transformer, task_of(flux_text, controls=[control])), expected)


def test_several_controlnets_are_added(flux_transformer: Any, flux_vae: Any, flux_text: Text) -> None:
    net, tokens = make_controlnet(), encoded(flux_vae, image_of(5))
    once = run(flux_transformer, task_of(flux_text, controls=[FluxControlNet(net, tokens, BLOCKS, 1.0)]))
    halves = [FluxControlNet(net, tokens, BLOCKS, 0.5)] * 2
    assert_close(run(flux_transformer, task_of(flux_text, controls=halves)), once)


@pytest.mark.parametrize(
    "changes", [{"weight": 0.0}, {"weight": -0.5}, {"begin": 0.99, "weight": [0.0] * 4}, {"begin": 1.0, "end": 1.0}]
)
def test_a_controlnet_that_is_off(flux_transformer: Any, flux_vae: Any, flux_text: Text, changes: Any) -> None:
    control = FluxControlNet(make_controlnet(), encoded(flux_vae, image_of(5)), BLOCKS, **changes)
    plain = run(flux_transformer, task_of(flux_text))
    assert torch.equal(run(flux_transformer, task_of(flux_text, controls=[control])), plain)


def test_controls_act_on_the_positive_side_only(flux_transformer: Any, flux_vae: Any, flux_text: Text) -> None:
    """With the same prompt on both sides, guidance amplifies only what the ControlNet adds."""
    sides = {"negative": side(flux_text(1), positive=False)}
    plain = run(flux_transformer, task_of(flux_text, {"cfg_scale": 3.0}, **sides))
    assert torch.allclose(plain, run(flux_transformer, task_of(flux_text)), atol=1e-5)
    control = FluxControlNet(make_controlnet(), encoded(flux_vae, image_of(5)), BLOCKS)
    guided = run(flux_transformer, task_of(flux_text, {"cfg_scale": 3.0}, controls=[control], **sides))
    single = run(flux_transformer, task_of(flux_text, controls=[control]))
    assert float((guided - plain).norm()) > 1.5 * float((single - plain).norm())


@pytest.mark.parametrize("xlabs", [False, True])
def test_files_of_controlnets(tmp_path: Path, xlabs: bool) -> None:
    if xlabs:
        net = make_controlnet(num_layers=2, num_single_layers=0, conditioning_embedding_channels=16, patch_size=2)
        weights = xlabs_names(net.state_dict())
    else:
        net = make_controlnet(num_mode=3, num_layers=2)
        weights = net.state_dict()
    save_file(weights, tmp_path / "control.safetensors")
    loaded = load_controlnet_file(tmp_path / "control.safetensors", torch.float32)
    assert loaded.config == net.config or {**loaded.config} == {**net.config}
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in loaded.state_dict().items())
    del weights["controlnet_blocks.1.weight"]
    save_file(weights, tmp_path / "broken.safetensors")
    with pytest.raises(ValueError, match="incomplete ControlNet"):
        load_controlnet_file(tmp_path / "broken.safetensors", torch.float32)


def xlabs_names(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a ControlNet's tensors with XLabs' names."""
    renamed = original_names(weights)
    for name, value in weights.items():
        if name.startswith("controlnet_blocks."):
            renamed[name] = value
        if name.startswith("controlnet_x_embedder."):
            renamed[name.replace("controlnet_x_embedder", "pos_embed_input")] = value
        if name.startswith("input_hint_block."):
            layer, kind = name.removeprefix("input_hint_block.").rsplit(".", 1)
            number = {"conv_in": 0, "conv_out": 14}.get(layer)
            number = 2 * (int(layer.removeprefix("blocks.")) + 1) if number is None else number
            renamed[f"input_hint_block.{number}.{kind}"] = value
    return renamed


def adapter_file(folder: Path, tokens: int = 4, width: int = 24, embeds: int = 12) -> Path:
    """Write an IP-Adapter for the tiny transformer."""
    generator = torch.Generator().manual_seed(9)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) * 0.3

    tensors = {
        "ip_adapter_proj_model.proj.weight": random(tokens * width, embeds),
        "ip_adapter_proj_model.proj.bias": random(tokens * width),
        "ip_adapter_proj_model.norm.weight": random(width) + 1.0,
        "ip_adapter_proj_model.norm.bias": random(width),
    }
    for block in range(2):
        for kind in "kv":
            name = f"double_blocks.{block}.processor.ip_adapter_double_stream_{kind}_proj"
            tensors |= {f"{name}.weight": random(32, width), f"{name}.bias": random(32)}
    save_file(tensors, folder / "ip.safetensors")
    return folder / "ip.safetensors"


def test_ip_adapter_matches_diffusers(flux_text: Text, tmp_path: Path) -> None:
    from tests.tiny_flux import make_transformer

    adapter, embeds = load_ip_adapter(adapter_file(tmp_path), torch.float32), torch.randn(1, 12)
    tokens = adapter.tokens(embeds)
    pairs = zip(adapter.blocks, adapter.keys, adapter.values, strict=True)
    sides = {number: (keys(tokens).detach(), values(tokens).detach()) for number, keys, values in pairs}
    transformer = make_transformer()
    text = flux_text(1)
    denoiser = pipeline.FluxDenoiser(transformer, 3.5, 4, image_prompts=[FluxImagePrompt(sides, sides, 0.6)])
    with torch.inference_mode():
        ours = denoiser(noise_of(1), torch.tensor(700.0), side(text))

    stored = adapter_tensors(tmp_path / "ip.safetensors")
    projection = {name.removeprefix("ip_adapter_proj_model."): v for name, v in stored.items() if "proj_model" in name}
    layers = {}
    for block in range(2):
        for kind in "kv":
            name = f"double_blocks.{block}.processor.ip_adapter_double_stream_{kind}_proj"
            layers |= {f"{block}.to_{kind}_ip.{end}": stored[f"{name}.{end}"] for end in ("weight", "bias")}
    transformer._load_ip_adapter_weights([{"image_proj": projection, "ip_adapter": layers}], low_cpu_mem_usage=False)
    for processor in transformer.attn_processors.values():
        if hasattr(processor, "scale"):
            processor.scale = [0.6]
    rows, columns = HEIGHT // 16, WIDTH // 16
    with torch.inference_mode():
        expected = transformer(
            pack(noise_of(1)), text[0], text[1], torch.tensor([0.7]), positions(rows, columns),
            torch.zeros(text[0].shape[1], 3), torch.tensor([3.5]),
            joint_attention_kwargs={"ip_adapter_image_embeds": [embeds[None]]}, return_dict=False,
        )[0]  # fmt: skip
    assert_close(ours, unpack(expected, HEIGHT // 8, WIDTH // 8))


def adapter_tensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    stored: dict[str, torch.Tensor] = load_file(path)
    return stored


def test_an_incomplete_ip_adapter_is_named(tmp_path: Path) -> None:
    stored = adapter_tensors(adapter_file(tmp_path))
    del stored["double_blocks.1.processor.ip_adapter_double_stream_v_proj.bias"]
    save_file(stored, tmp_path / "broken.safetensors")
    with pytest.raises(ValueError, match="incomplete IP-Adapter"):
        load_ip_adapter(tmp_path / "broken.safetensors", torch.float32)


def test_redux_files_and_fewer_tokens(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = ReduxImageEncoder(6, 8)
    save_file(model.state_dict(), tmp_path / "redux.safetensors")
    loaded = redux.load_redux(tmp_path / "redux.safetensors", torch.bfloat16)
    assert loaded.dtype == torch.bfloat16
    assert loaded.config.redux_dim == 6
    tokens = torch.arange(16.0).reshape(1, 16, 1)
    assert torch.equal(redux.weaken(tokens, 1, "area", 1.0), tokens)
    assert redux.weaken(tokens, 2, "area", 1.0).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert torch.allclose(redux.weaken(tokens, 1, "area", 0.5), tokens * 0.25)
    with pytest.raises(ValueError, match="at most 4"):
        redux.weaken(tokens, 5, "area", 1.0)


def test_regions_see_their_own_text_only(flux_transformer: Any, flux_text: Text) -> None:
    left = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.bool)
    left[..., : WIDTH // 2] = True
    rows, columns = HEIGHT // 16, WIDTH // 16
    first, second = flux_text(1), flux_text(2)
    regions = [PromptRegion(first[0], left), PromptRegion(second[0], ~left)]
    conditioning = build_conditioning(regions, first[1], rows, columns, positive=True)
    mask = conditioning.attention_mask
    assert mask is not None
    text = first[0].shape[1]
    image = 2 * text + torch.arange(rows * columns).reshape(rows, columns)
    left_tokens, right_tokens = image[:, : columns // 2].flatten(), image[:, columns // 2 :].flatten()
    plane = mask[0, 0]
    assert plane[:text, :text].all()
    assert plane[:text][:, left_tokens].all()
    assert not plane[:text, text : 2 * text].any()
    assert not plane[:text][:, right_tokens].any()
    assert not plane[left_tokens][:, right_tokens].any()
    assert plane[right_tokens][:, text : 2 * text].all()
    whole = build_conditioning([PromptRegion(first[0])], first[1], rows, columns, positive=True)
    assert whole.attention_mask is None


def test_prompts_without_a_mask_are_for_the_background() -> None:
    left = torch.zeros(1, 32, 64, dtype=torch.bool)
    left[..., :32] = True
    regions = [PromptRegion(torch.zeros(1, 3, 4), left), PromptRegion(torch.zeros(1, 3, 4))]
    mask = build_conditioning(regions, torch.zeros(1, 4), 2, 4, positive=True).attention_mask
    assert mask is not None
    plane, image = mask[0, 0], 6 + torch.arange(8).reshape(2, 4)
    background = image[:, 2:].flatten()
    assert plane[3:6][:, background].all()
    assert not plane[3:6][:, image[:, :2].flatten()].any()
    assert plane[background][:, 6:].all()  # the background sees the whole image


def test_regions_apply_to_even_blocks(flux_transformer: Any, flux_text: Text) -> None:
    seen: list[bool] = []
    blocks = [*flux_transformer.transformer_blocks, *flux_transformer.single_transformer_blocks]
    hooks = [
        block.attn.register_forward_pre_hook(
            lambda _m, _a, kwargs: seen.append(kwargs.get("attention_mask") is not None), with_kwargs=True
        )
        for block in blocks
    ]
    left = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.bool)
    left[..., :32] = True
    text = flux_text(1)
    conditioning = build_conditioning([PromptRegion(text[0], left)], text[1], HEIGHT // 16, WIDTH // 16, positive=True)
    task: FluxDenoiseTask = task_of(flux_text, positive=conditioning)
    task.inputs.steps = 1
    try:
        run(flux_transformer, task)
    finally:
        for hook in hooks:
            hook.remove()
    assert seen == [True, False, True, False]


def test_rotary_tables_match_diffusers(flux_transformer: Any) -> None:
    ids = torch.cat([torch.zeros(4, 3), positions(3, 5, 1, (2, 7))])
    ours = rotary_table(ids, TRANSFORMER["axes_dims_rope"], torch.float32)  # type: ignore[arg-type]
    theirs = flux_transformer.pos_embed(ids)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(
    ("preset", "size", "expected"),
    [
        ("off", (2048, 2048), None),
        ("auto", (1536, 1024), None),
        ("auto", (2048, 1024), (2.0, 4.0, 2.0)),
        ("auto", (8192, 1024), (8.0, 8.0, 2.0)),
        ("manual", (1024, 1024), None),
        ("manual", (2048, 1024), (2.0, 4.0, 2.0)),
        ("area", (1024, 1024), None),
        ("area", (2048, 2048), (2.0, 4.8, 2.0)),
        ("4k", (4096, 2048), (4.0, 2.0, 2.0)),
    ],
)
def test_presets_of_position_scaling(preset: Any, size: tuple[int, int], expected: Any) -> None:
    scaling = dynamic_positions(preset, *size)
    values = None if scaling is None else (scaling.ratio, scaling.scale, scaling.exponent)
    assert values == (None if expected is None else pytest.approx(expected))


def test_position_scaling_fades_with_the_noise() -> None:
    scaling = dynamic_positions("manual", 2048, 1024, 3.0, 2.0)
    assert scaling is not None
    assert scaling.stretch(1.0) == pytest.approx(3.0 * torch.log(torch.tensor(2.0)).item())
    assert scaling.stretch(0.5) == pytest.approx(scaling.stretch(1.0) / 4)
    assert scaling.stretch(0.0) == 0.0
    axes, ids = (4, 6, 6), positions(2, 2)
    plain, stretched = (
        rotary_table(ids, axes, torch.float32),
        rotary_table(ids, axes, torch.float32, scaling.stretch(1.0)),
    )
    base = 10000 * 2 ** (3.0 * 6 / 4)
    assert stretched[0][3, 6] == pytest.approx(float(torch.cos(torch.tensor(base ** (-2 / 6)))), abs=1e-6)
    assert not torch.equal(plain[0], stretched[0])


def test_attention_of_an_image_prompt_has_no_gate() -> None:
    query = torch.randn(1, 5, 2, 16)
    keys, values = torch.randn(1, 3, 32), torch.randn(1, 3, 32)
    prompt = FluxImagePrompt({0: (keys, values)}, {}, 0.5)
    call: Any = type("Call", (), {"index": 0, "count": 4, "conditioning": FluxConditioning(keys, keys)})()
    split = [part.reshape(1, 3, 2, 16).transpose(1, 2) for part in (keys, values)]
    attended = functional.scaled_dot_product_attention(query.transpose(1, 2), *split).transpose(1, 2).reshape(1, 5, 32)
    result = prompt.term(0, query, call)
    assert result is not None
    assert torch.allclose(result, 0.5 * attended)
    assert prompt.term(1, query, call) is None
