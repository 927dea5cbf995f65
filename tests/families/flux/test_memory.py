"""FLUX.1's transformer in little memory: packed weights, weights that are streamed to the device, LoRAs beside them."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from invokeclone.engine.cache import ModelCache
from invokeclone.engine.loading import loaders
from invokeclone.engine.lora.apply import apply_loras
from invokeclone.engine.lora.files import load_lora
from invokeclone.engine.lora.matching import LoRAPatch
from invokeclone.engine.placement import Placement, size_of
from invokeclone.engine.quantized.files import read_weights
from invokeclone.engine.quantized.packed import PackedLinear, PackedTensor
from invokeclone.families.flux.load import transformer_of
from invokeclone.families.flux.lora_keys import LAYOUT
from invokeclone.families.flux.nodes.denoise import FluxDenoiseInvocation
from invokeclone.families.flux.nodes.models import FluxModelLoaderInvocation
from invokeclone.families.flux.nodes.prompts import FluxTextEncoderInvocation
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, FluxVariantType, ModelFormat, ModelType, SubModelType
from invokeclone.kit.config.settings import Settings
from tests.counted_memory import MB, FakeMemory
from tests.families.flux.test_pipeline import CPU, HEIGHT, WIDTH, Text, run, task_of
from tests.quantized_files import nf4, write_gguf
from tests.quantized_forms import FLOAT8, INT8, SCALED, SDNQ, quantize
from tests.tiny_flux import make_transformer, original_names
from tests.tiny_transformers import context_with

KINDS = ("bfloat16", "Q8_0", "Q4_0", "nf4")
OTHER_FORMS = (FLOAT8, SCALED, INT8, SDNQ)
PACKED = (*KINDS[1:], *OTHER_FORMS)
FORMATS = {
    "bfloat16": ModelFormat.Checkpoint, "Q8_0": ModelFormat.GGUFQuantized, "Q4_0": ModelFormat.GGUFQuantized,
    "nf4": ModelFormat.BnbQuantizednf4b,
}  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write a transformer, whose rows are whole blocks of every kind, once per kind."""
    folder = tmp_path_factory.mktemp("flux-kinds")
    weights = original_names(make_transformer(attention_head_dim=32, axes_dims_rope=(4, 14, 14)).state_dict())
    paths = {kind: folder / f"{kind}.{'gguf' if kind.startswith('Q') else 'safetensors'}" for kind in KINDS}
    save_file({name: value.bfloat16() for name, value in weights.items()}, paths["bfloat16"])
    for kind in ("Q8_0", "Q4_0"):
        write_gguf(paths[kind], weights, kind)
    stored: dict[str, torch.Tensor] = {}
    for name, value in weights.items():
        stored |= nf4(name, value) if value.ndim == 2 and "blocks" in name else {name: value.bfloat16()}
    save_file(stored, paths["nf4"])
    for form in OTHER_FORMS:
        paths[form] = folder / f"{form}.safetensors"
        save_file(quantize(form, weights), paths[form])
    return paths


@pytest.fixture
def load(files: dict[str, Path]) -> Callable[[str, torch.dtype], Any]:
    return lambda kind, dtype: transformer_of(read_weights(files[kind]), dtype, kind)


@pytest.fixture(scope="module")
def lora(files: dict[str, Path]) -> LoRAPatch:
    """Return a LoRA of all kinds of layers: outer, fused, in double and single blocks; one change depends on the weight."""
    generator, tensors = torch.Generator().manual_seed(3), {}
    for layer in ("img_in", "double_blocks.0.img_attn.qkv", "double_blocks.1.txt_mlp.0", "single_blocks.1.linear1"):
        rows, columns = read_weights(files["bfloat16"])[f"{layer}.weight"].shape
        name = f"lora_unet_{layer.replace('.', '_')}"
        tensors[f"{name}.lora_up.weight"] = torch.randn(rows, 4, generator=generator)
        tensors[f"{name}.lora_down.weight"] = torch.randn(4, columns, generator=generator)
        if layer == "double_blocks.1.txt_mlp.0":
            tensors[f"{name}.dora_scale"] = torch.rand(rows, 1, generator=generator) + 0.5
    path = files["bfloat16"].parent / "lora.safetensors"
    save_file(tensors, path)
    return LoRAPatch("style", load_lora(path, LAYOUT, torch.float32).parts["transformer"], 0.2)


def difference(first: torch.Tensor, second: torch.Tensor) -> float:
    return float((first.float() - second.float()).norm() / second.float().norm())


@pytest.mark.parametrize("kind", PACKED)
def test_a_lora_on_packed_weights_equals_one_on_their_decoded_values(
    kind: str, load: Any, files: dict[str, Path], lora: LoRAPatch, flux_text: Text
) -> None:
    packed = load(kind, torch.float32)
    values = {
        n: v.decode(torch.float32) if isinstance(v, PackedTensor) else v for n, v in read_weights(files[kind]).items()
    }
    decoded = transformer_of(values, torch.float32, kind)
    assert any(isinstance(module, PackedLinear) for module in packed.modules())
    assert not any(isinstance(module, PackedLinear) for module in decoded.modules())
    task = task_of(flux_text)
    with apply_loras(packed, [lora], CPU), apply_loras(decoded, [lora], CPU):
        result, expected = run(packed, task), run(decoded, task)
    plain = run(decoded, task)
    assert difference(expected, plain) > 0.05
    assert difference(result, expected) < 1e-5
    assert difference(run(packed, task), plain) < 1e-5  # the LoRA is gone


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("with_lora", [False, True])
def test_streamed_weights_give_the_same_latents(
    kind: str, share: float, with_lora: bool, load: Any, lora: LoRAPatch, flux_text: Text
) -> None:
    transformer, memory = load(kind, torch.bfloat16), FakeMemory(10 * MB)
    placement, task = Placement(transformer, memory), task_of(flux_text)
    assert placement.size == size_of(transformer)
    with ExitStack() as stack:
        if with_lora:
            stack.enter_context(apply_loras(transformer, [lora], CPU))
        placement.enter()
        assert placement.complete
        expected = run(transformer, task)
        placement.leave()
        assert memory.taken == 0
    budget = int(placement.size * share)
    placement.enter(budget)
    with ExitStack() as stack:
        if with_lora:
            stack.enter_context(apply_loras(transformer, [lora], CPU))
        taken = []
        for block in (*transformer.transformer_blocks, *transformer.single_transformer_blocks):
            stack.callback(block.register_forward_hook(lambda *_: taken.append(memory.taken)).remove)
        memory.capacity = placement.on_device + largest_unit(transformer)
        assert torch.equal(run(transformer, task), expected)
    assert set(taken) == {placement.on_device}  # what was streamed has left the device after each block
    assert placement.on_device <= budget
    assert (placement.on_device > budget - largest_unit(transformer)) or not budget
    placement.leave()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in transformer.modules())


def largest_unit(transformer: Any) -> int:
    return max(
        size_of(module) for module in transformer.modules() if next(module.parameters(recurse=False), None) is not None
    )


@pytest.mark.parametrize("kind", KINDS)
def test_sizes_in_the_cache_are_those_of_the_file(kind: str, files: dict[str, Path], tmp_path: Path) -> None:
    cache = ModelCache(Settings(root=tmp_path, device_working_mem_gb=0), "cpu", FakeMemory(10 * MB))
    record = FakeRecord(kind)
    loaded = loaders.load(cache, record, files[kind], SubModelType.Transformer)
    size, estimate = cache.usage()[2], loaders._size(files[kind], SubModelType.Transformer)
    assert size == size_of(loaded.model)
    assert 0.75 * estimate < size <= estimate  # names, settings and 32-bit norms are small in real files
    with loaded:
        assert cache.usage()[3] == size


class FakeRecord:
    base, type, default_settings = BaseModelType.Flux, ModelType.Main, None

    def __init__(self, kind: str) -> None:
        self.key, self.name, self.format = kind, kind, FORMATS[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_may_be_overwritten_while_its_model_is_in_use(
    kind: str, files: dict[str, Path], flux_text: Text, tmp_path: Path
) -> None:
    path = tmp_path / files[kind].name
    path.write_bytes(files[kind].read_bytes())
    transformer = transformer_of(read_weights(path), torch.bfloat16, kind)
    path.write_bytes(bytes(path.stat().st_size))
    expected = transformer_of(read_weights(files[kind]), torch.bfloat16, kind)
    assert torch.equal(run(transformer, task_of(flux_text)), run(expected, task_of(flux_text)))


@pytest.mark.parametrize("ram_copy", [True, False])
@pytest.mark.parametrize("partial", [True, False])
def test_text_encoders_leave_the_device_before_denoising(
    ram_copy: bool, partial: bool, flux_folder: Path, tmp_path: Path
) -> None:
    memory = FakeMemory(100 * MB)
    settings = Settings(
        root=tmp_path, device_working_mem_gb=0, enable_partial_loading=partial, keep_ram_copy_of_weights=ram_copy
    )
    cache = ModelCache(settings, "cpu", memory)
    context = context_with(cache)
    main = context.models.add(
        flux_folder, BaseModelType.Flux, ModelType.Main, ModelFormat.Diffusers, variant=FluxVariantType.Dev
    )
    model = FluxModelLoaderInvocation(model=main).invoke(context)
    parts = {"clip": model.clip.text_encoder, "t5": model.t5_encoder.text_encoder, "net": model.transformer.transformer}
    entries = {name: context.models.load(identifier)._entry for name, identifier in parts.items()}
    in_use: list[dict[str, int]] = []
    entries["net"].model.transformer_blocks[0].register_forward_hook(
        lambda *_: in_use.append({name: entry.on_device for name, entry in entries.items()})
    )

    def make() -> torch.Tensor:
        prompt = FluxTextEncoderInvocation(
            clip=model.clip, t5_encoder=model.t5_encoder, t5_max_seq_len=256, prompt="a cat"
        ).invoke(context)
        output = FluxDenoiseInvocation(
            positive_text_conditioning=prompt.conditioning, transformer=model.transformer, width=WIDTH, height=HEIGHT,
            num_steps=2, seed=7,
        ).invoke(context)  # fmt: skip
        latents: torch.Tensor = context.tensors.load(output.latents.latents_name)
        return latents

    expected = make()
    assert in_use[0] == {name: entry.size for name, entry in entries.items()}  # all fit
    in_use.clear()
    for entry in entries.values():
        entry.placement.leave()
    memory.capacity = max(entry.size for entry in entries.values())
    assert torch.equal(make(), expected)
    assert in_use[0]["net"] == entries["net"].size
    assert in_use[0]["t5"] == 0
    assert sum(in_use[0].values()) <= memory.capacity
    assert all(entry.locks == 0 for entry in entries.values())
