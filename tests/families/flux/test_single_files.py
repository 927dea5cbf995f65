"""Single files of FLUX.1: names of Black Forest Labs and of diffusers, prefixes, sizes, missing tensors."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from invokeclone.components.flux.single_files import PREFIXES
from invokeclone.engine.loading.load_request import LoadRequest
from invokeclone.engine.quantized.files import read_weights
from invokeclone.families.flux import load, single_files
from invokeclone.graph.vocabulary.taxonomy import SubModelType
from invokeclone.kit.config.settings import Settings
from invokeclone.models.errors import InvalidModel
from tests.tiny_flux import TRANSFORMER, make_transformer, original_names

CPU = torch.device("cpu")


def request(path: Path, tmp_path: Path, part: SubModelType | None = SubModelType.Transformer) -> LoadRequest:
    return LoadRequest(SimpleNamespace(name="tiny"), path, part, torch.float32, CPU, Settings(root=tmp_path))


def assert_same(loaded: Any, expected: Any) -> None:
    stored = loaded.state_dict()
    assert stored.keys() == expected.state_dict().keys()
    assert all(torch.equal(stored[name], value.bfloat16()) for name, value in expected.state_dict().items())


def test_original_names(flux_file: Path, flux_transformer: Any, tmp_path: Path) -> None:
    loaded = load.load_checkpoint(request(flux_file, tmp_path))
    assert_same(loaded, flux_transformer)
    assert {name: loaded.config[name] for name in TRANSFORMER} == TRANSFORMER
    assert not loaded.training


@pytest.mark.parametrize("prefix", PREFIXES)
def test_prefixes_of_other_programs(prefix: str, flux_file: Path, flux_transformer: Any, tmp_path: Path) -> None:
    tensors = {f"{prefix}{name}": value for name, value in load_file(flux_file).items()}
    tensors["text_encoders.clip_l.transformer.text_model.final_layer_norm.weight"] = torch.ones(4)
    save_file(tensors, tmp_path / "bundle.safetensors")
    assert_same(load.load_checkpoint(request(tmp_path / "bundle.safetensors", tmp_path)), flux_transformer)


def test_names_of_diffusers(flux_transformer: Any, tmp_path: Path) -> None:
    save_file(flux_transformer.state_dict(), tmp_path / "diffusers.safetensors")
    assert_same(load.load_checkpoint(request(tmp_path / "diffusers.safetensors", tmp_path)), flux_transformer)


def test_published_files_are_renamed_as_diffusers_does() -> None:
    """The library's own converter knows the published sizes only, so it gets a file of those sizes without values."""
    from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers

    sizes = {"attention_head_dim": 128, "num_attention_heads": 24, "axes_dims_rope": (16, 56, 56)}
    with torch.device("meta"):
        weights = original_names(make_transformer(**sizes).state_dict())
        ours = single_files.NAMES.to_diffusers(weights)
        theirs = convert_flux_transformer_checkpoint_to_diffusers(dict(weights))
    assert {name: tensor.shape for name, tensor in ours.items()} == {name: t.shape for name, t in theirs.items()}


def test_schnell_has_no_guidance(tmp_path: Path) -> None:
    transformer = make_transformer(guidance_embeds=False)
    save_file(original_names(transformer.state_dict()), tmp_path / "schnell.safetensors")
    loaded = load.load_checkpoint(request(tmp_path / "schnell.safetensors", tmp_path))
    assert loaded.config.guidance_embeds is False


@pytest.mark.parametrize("layer", ["double_blocks.1.img_attn.qkv.weight", "img_in.weight", "final_layer.linear.bias"])
def test_a_missing_tensor_is_named(layer: str, flux_file: Path, tmp_path: Path) -> None:
    tensors = load_file(flux_file)
    del tensors[layer]
    save_file(tensors, tmp_path / "broken.safetensors")
    with pytest.raises(ValueError, match="incomplete transformer"):
        load.load_checkpoint(request(tmp_path / "broken.safetensors", tmp_path))


def test_a_tensor_of_another_size_is_named(flux_file: Path, tmp_path: Path) -> None:
    tensors = load_file(flux_file)
    tensors["double_blocks.1.img_mlp.0.weight"] = torch.zeros(3, 3)
    save_file(tensors, tmp_path / "broken.safetensors")
    with pytest.raises(ValueError, match="incomplete transformer"):
        load.load_checkpoint(request(tmp_path / "broken.safetensors", tmp_path))


def test_unknown_tensors_are_logged(flux_file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_file({**load_file(flux_file), "extra.weight": torch.zeros(1)}, tmp_path / "extra.safetensors")
    load.load_checkpoint(request(tmp_path / "extra.safetensors", tmp_path))
    assert "extra.weight" in caplog.text


def test_other_parts_are_rejected(flux_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="separate T5 encoder"):
        load.load_checkpoint(request(flux_file, tmp_path, SubModelType.TextEncoder2))


def test_the_vae_of_a_single_file(flux_vae: Any, tmp_path: Path) -> None:
    save_file(flux_vae.state_dict(), tmp_path / "ae.safetensors")
    loaded = load.load_vae(request(tmp_path / "ae.safetensors", tmp_path))
    assert loaded.config.scaling_factor == pytest.approx(0.3611)
    assert loaded.config.shift_factor == pytest.approx(0.1159)
    assert all(torch.equal(value, flux_vae.state_dict()[name]) for name, value in loaded.state_dict().items())


def denoised(transformer: Any, flux_text: Any) -> torch.Tensor:
    from tests.families.flux.test_pipeline import run, task_of

    return run(transformer, task_of(flux_text)).float()


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "nf4"])
def test_quantized_files(kind: str, flux_text: Any, tmp_path: Path) -> None:
    """Fused layers are cut by rows while they are packed; the result is that of the decoded weights."""
    from invokeclone.engine.quantized.packed import PackedLinear, PackedTensor
    from tests.quantized_files import nf4, write_gguf

    sizes: dict[str, Any] = {"attention_head_dim": 32, "axes_dims_rope": (4, 14, 14)}
    transformer = make_transformer(**sizes)
    original = original_names(transformer.state_dict())
    if kind == "nf4":
        path = tmp_path / "nf4.safetensors"
        stored: dict[str, torch.Tensor] = {}
        for name, value in original.items():
            packs = value.ndim == 2 and value.shape[1] % 64 == 0
            stored |= nf4(name, value, nested=True) if packs else {name: value}
        save_file(stored, path)
    else:
        path = tmp_path / "flux.gguf"
        write_gguf(path, original, kind)
    loaded = load.load_checkpoint(request(path, tmp_path))
    assert isinstance(loaded.transformer_blocks[0].attn.to_k, PackedLinear)
    assert isinstance(loaded.single_transformer_blocks[1].proj_mlp, PackedLinear)
    assert isinstance(loaded.time_text_embed.timestep_embedder.linear_1, PackedLinear)  # the first parameter of all
    assert loaded.dtype == torch.bfloat16
    weights = {
        name: value.decode(torch.float32) if isinstance(value, PackedTensor) else value
        for name, value in single_files.NAMES.to_diffusers(read_weights(path)).items()
    }
    plain = make_transformer(**sizes)
    plain.load_state_dict(weights)
    expected = denoised(plain.bfloat16(), flux_text)
    assert torch.allclose(denoised(loaded, flux_text), expected, atol=1e-3)


def test_an_input_layer_of_another_shape(flux_transformer: Any) -> None:
    """Some GGUF files have flattened the layer of the image."""
    original = original_names(flux_transformer.state_dict())
    expected = original["img_in.weight"]
    flat = original | {"img_in.weight": expected.reshape(1, -1)}
    renamed = single_files.NAMES.to_diffusers(flat)
    assert torch.equal(renamed["x_embedder.weight"], expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
def test_gguf_files_without_quantization(kind: str, flux_transformer: Any, tmp_path: Path) -> None:
    from tests.quantized_files import write_gguf

    write_gguf(tmp_path / "a.gguf", original_names(flux_transformer.state_dict()), kind)
    loaded = load.load_checkpoint(request(tmp_path / "a.gguf", tmp_path)).state_dict()
    expected = flux_transformer.state_dict()
    assert loaded.keys() == expected.keys()
    assert all(torch.allclose(loaded[name].float(), value, rtol=0.01, atol=1e-6) for name, value in expected.items())


def test_a_truncated_gguf_file_is_named(flux_transformer: Any, tmp_path: Path) -> None:
    from tests.quantized_files import write_gguf

    write_gguf(tmp_path / "a.gguf", original_names(flux_transformer.state_dict()), "Q8_0")
    content = (tmp_path / "a.gguf").read_bytes()
    (tmp_path / "a.gguf").write_bytes(content[: len(content) // 2])
    with pytest.raises(InvalidModel, match="truncated"):
        load.load_checkpoint(request(tmp_path / "a.gguf", tmp_path))


def test_other_parts_of_a_bundle(
    flux_file: Path, flux_vae: Any, sd1_parts: dict[str, Any], model_cache: Any, tmp_path: Path
) -> None:
    """ComfyUI's bundles have CLIP and the VAE, and may have T5."""
    from invokeclone.families.flux.nodes.models import FluxModelLoaderInvocation
    from invokeclone.graph.vocabulary.taxonomy import BaseModelType, FluxVariantType, ModelFormat, ModelType
    from tests.tiny_transformers import context_with

    tensors = {f"model.diffusion_model.{name}": value for name, value in load_file(flux_file).items()}
    tensors |= {f"vae.{name}": value for name, value in flux_vae.state_dict().items()}
    clip = sd1_parts["text_encoder"].state_dict()
    tensors |= {f"text_encoders.clip_l.transformer.text_model.{name}": value for name, value in clip.items()}
    save_file({name: value.contiguous() for name, value in tensors.items()}, tmp_path / "bundle.safetensors")
    context = context_with(model_cache)
    main = context.models.add(
        tmp_path / "bundle.safetensors", BaseModelType.Flux, ModelType.Main, ModelFormat.Checkpoint,
        variant=FluxVariantType.Dev,
    )  # fmt: skip
    with pytest.raises(ValueError, match="comes without a T5 encoder: install one"):
        FluxModelLoaderInvocation(model=main).invoke(context)
    t5 = context.models.add(tmp_path, BaseModelType.Any, ModelType.T5Encoder, ModelFormat.T5Encoder)
    output = FluxModelLoaderInvocation(model=main).invoke(context)
    assert output.t5_encoder.text_encoder.key == t5.key
    assert output.clip.text_encoder.key == output.vae.vae.key == main.key
    vae = load.load_checkpoint(request(tmp_path / "bundle.safetensors", tmp_path, SubModelType.VAE))
    assert all(torch.equal(value, flux_vae.state_dict()[name]) for name, value in vae.state_dict().items())
    encoder = load.load_checkpoint(request(tmp_path / "bundle.safetensors", tmp_path, SubModelType.TextEncoder))
    assert all(torch.equal(encoder.state_dict()[name], value.bfloat16()) for name, value in clip.items())
    assert load.load_checkpoint(request(tmp_path / "bundle.safetensors", tmp_path, SubModelType.Tokenizer))


@pytest.mark.parametrize("form", ["full precision", "8-bit floats"])
def test_t5_of_a_bundle_with_the_tokenizer_of_another_model(
    form: str, flux_file: Path, model_cache: Any, tmp_path: Path
) -> None:
    """T5 is in bundles without its vocabulary. All of a bundle of 8-bit floats is in them."""
    from invokeclone.engine.quantized.packed import PackedLinear
    from invokeclone.families.flux.nodes.models import FluxModelLoaderInvocation
    from invokeclone.graph.vocabulary.taxonomy import BaseModelType, FluxVariantType, ModelFormat, ModelType
    from tests.quantized_forms import quantize
    from tests.tiny_transformers import context_with, make_t5

    _, t5 = make_t5(24)
    tensors = {f"model.diffusion_model.{name}": value for name, value in load_file(flux_file).items()}
    tensors |= {f"text_encoders.t5xxl.transformer.{name}": value for name, value in t5.state_dict().items()}
    path = tmp_path / "bundle.safetensors"
    save_file(quantize(form, tensors), path)
    context = context_with(model_cache)
    main = context.models.add(
        path, BaseModelType.Flux, ModelType.Main, ModelFormat.Checkpoint, variant=FluxVariantType.Dev
    )
    context.models.add(tmp_path, BaseModelType.Flux, ModelType.VAE, ModelFormat.Checkpoint)
    context.models.add(
        tmp_path / "clip", BaseModelType.Any, ModelType.CLIPEmbed, ModelFormat.Diffusers, variant="large"
    )
    with pytest.raises(
        ValueError, match=r"bundle\.safetensors has T5 without its tokenizer: also install a T5 encoder"
    ):
        FluxModelLoaderInvocation(model=main).invoke(context)
    gguf = context.models.add(tmp_path / "t5.gguf", BaseModelType.Any, ModelType.T5Encoder, ModelFormat.GGUFQuantized)
    output = FluxModelLoaderInvocation(model=main).invoke(context)
    assert output.t5_encoder.tokenizer.key == gguf.key
    assert output.t5_encoder.text_encoder == main.part(SubModelType.TextEncoder2)
    encoder = load.load_checkpoint(request(path, tmp_path, SubModelType.TextEncoder2))
    query = encoder.encoder.block[0].layer[0].SelfAttention.q
    assert isinstance(query, PackedLinear) == (form != "full precision")
    transformer = load.load_checkpoint(request(path, tmp_path))
    assert isinstance(transformer.transformer_blocks[0].attn.to_k, PackedLinear) == (form != "full precision")
