"""Tiny models of transformer families with random weights, as pipeline folders, and a context in which nodes run with them."""

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from invokeclone.graph.vocabulary.model_fields import ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelFormat, ModelType
from tests.fakes_context import FakeConfig, FakeContext
from tests.tiny_models import TEXT_ENCODER, VAE

if TYPE_CHECKING:
    from invokeclone.engine.cache import ModelCache

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def save_pipeline(folder: Path, class_name: str, parts: dict[str, Any]) -> Path:
    """Save the parts of a pipeline as diffusers does, with model_index.json."""
    index: dict[str, Any] = {"_class_name": class_name}
    for name, part in parts.items():
        part.save_pretrained(folder / name)
        index[name] = [type(part).__module__.partition(".")[0], type(part).__name__]
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder


def make_vae16(**config: Any) -> Any:
    """Return an autoencoder with 16 latent channels."""
    import torch
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    torch.manual_seed(0)
    return AutoencoderKL(**VAE, latent_channels=16, use_quant_conv=False, use_post_quant_conv=False, **config).eval()


def make_clip_with_projection(width: int, seed: int) -> Any:
    """Return a CLIP text encoder for the tiny models' tokenizer."""
    import torch
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    torch.manual_seed(seed)
    sizes = {"hidden_size": width, "projection_dim": width}
    return CLIPTextModelWithProjection(CLIPTextConfig(**{**TEXT_ENCODER, **sizes})).eval()


def make_t5(width: int) -> tuple[Any, Any]:
    """Return a tokenizer of single letters and a T5 encoder."""
    import torch
    from transformers import T5Config, T5EncoderModel, T5TokenizerFast

    torch.manual_seed(2)
    sizes = {"d_model": width, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 4}
    config = T5Config(vocab_size=40, feed_forward_proj="gated-gelu", **sizes)
    words = ["<pad>", "</s>", "<unk>", "▁", *LETTERS]
    tokenizer = T5TokenizerFast(vocab=[(word, -float(n)) for n, word in enumerate(words)], extra_ids=0)
    return tokenizer, T5EncoderModel(config).eval()


def make_sd3_parts(tokenizer: Any) -> dict[str, Any]:
    """Return the parts of Stable Diffusion 3, with `tokenizer` for both CLIP encoders."""
    import torch
    from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

    t5_tokenizer, t5 = make_t5(64)
    torch.manual_seed(3)
    transformer = SD3Transformer2DModel(
        sample_size=16, patch_size=2, in_channels=16, out_channels=16, num_layers=2, attention_head_dim=8,
        num_attention_heads=2, joint_attention_dim=64, caption_projection_dim=16, pooled_projection_dim=56,
        pos_embed_max_size=12,
    )  # fmt: skip
    torch.nn.init.normal_(transformer.proj_out.weight, std=0.3)
    return {
        "transformer": transformer.eval(),
        "text_encoder": make_clip_with_projection(24, 0),
        "text_encoder_2": make_clip_with_projection(32, 1),
        "text_encoder_3": t5,
        "tokenizer": tokenizer,
        "tokenizer_2": tokenizer,
        "tokenizer_3": t5_tokenizer,
        "vae": make_vae16(scaling_factor=1.5305, shift_factor=0.0609),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
    }


def make_glm_tokenizer() -> Any:
    """Return a tokenizer of single letters that begins each text as GLM's does."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["<|endoftext|>", "[gMASK]", "<sop>", *LETTERS, " "]
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="<|endoftext|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[gMASK] <sop> $A", special_tokens=[("[gMASK]", 1), ("<sop>", 2)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<|endoftext|>", model_max_length=2048)


def make_cogview4_parts() -> dict[str, Any]:
    """Return the parts of CogView4."""
    import torch
    from diffusers.models.transformers.transformer_cogview4 import CogView4Transformer2DModel
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
    from transformers import GlmConfig, GlmModel

    torch.manual_seed(4)
    glm = GlmConfig(
        vocab_size=40, hidden_size=32, intermediate_size=32, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, pad_token_id=0,
    )  # fmt: skip
    transformer = CogView4Transformer2DModel(
        patch_size=2, in_channels=16, out_channels=16, num_layers=2, attention_head_dim=16, num_attention_heads=2,
        text_embed_dim=32, time_embed_dim=16, condition_dim=8, pos_embed_max_size=64, sample_size=16,
        rope_axes_dim=(16, 16),
    )  # fmt: skip
    torch.nn.init.normal_(transformer.proj_out.weight, std=0.3)
    return {
        "transformer": transformer.eval(),
        "text_encoder": GlmModel(glm).eval(),
        "tokenizer": make_glm_tokenizer(),
        "vae": make_vae16(scaling_factor=1.0, shift_factor=0.3),
        "scheduler": FlowMatchEulerDiscreteScheduler(
            base_shift=0.25, max_shift=0.75, base_image_seq_len=256, max_image_seq_len=4096, use_dynamic_shifting=True,
            time_shift_type="linear",
        ),
    }  # fmt: skip


CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
"""The part of Qwen3's template that applies to one message of a user."""


def make_qwen3(width: int = 32, layers: int = 3) -> tuple[Any, Any]:
    """Return a tokenizer of bytes and Qwen3 as a language model."""
    import torch
    from tokenizers import pre_tokenizers
    from transformers import Qwen2TokenizerFast, Qwen3Config, Qwen3ForCausalLM

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    words = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *special]
    tokenizer = Qwen2TokenizerFast(
        vocab={word: number for number, word in enumerate(words)}, merges=[], pad_token=special[0],
        eos_token=special[2], additional_special_tokens=special[1:2],
    )  # fmt: skip
    tokenizer.chat_template = CHAT
    torch.manual_seed(5)
    config = Qwen3Config(
        vocab_size=len(words), hidden_size=width, intermediate_size=width, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, tie_word_embeddings=True,
    )  # fmt: skip
    return tokenizer, Qwen3ForCausalLM(config).eval()


def make_z_image_transformer() -> Any:
    """Return Z-Image's transformer for prompts of `make_qwen3`."""
    import torch
    from diffusers.models.transformers.transformer_z_image import ZImageTransformer2DModel

    torch.manual_seed(6)
    transformer = ZImageTransformer2DModel(
        in_channels=16, dim=32, n_layers=3, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=32,
        axes_dims=[4, 6, 6], axes_lens=[256, 64, 64],
    )  # fmt: skip
    for name, parameter in transformer.named_parameters():
        if name.endswith("pad_token") or "adaLN" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return transformer.eval()


def original_z_image_names(tensors: "dict[str, Any]") -> dict[str, Any]:
    """Return a Z-Image transformer's tensors with the authors' names, as published: without a token that pads images."""
    import torch

    from invokeclone.families.z_image import single_files

    weights = dict(tensors)
    original = {"norm_final.weight": torch.ones(32), "cap_pad_token": weights.pop("cap_pad_token")[0]}
    del weights["x_pad_token"]
    layers = {module: name for name, module in single_files.OUTER_LAYERS.items()}
    for name, value in weights.items():
        layer, _, kind = name.rpartition(".")
        block, _, module = layer.partition(".attention.")
        if module in ("to_q", "to_k", "to_v"):
            stacked = [weights[f"{block}.attention.{side}.weight"] for side in ("to_q", "to_k", "to_v")]
            original[f"{block}.attention.qkv.weight"] = torch.cat(stacked)
        elif module:
            short = {"to_out.0": "out", "norm_q": "q_norm", "norm_k": "k_norm"}[module]
            original[f"{block}.attention.{short}.{kind}"] = value
        else:
            original[f"{layers.get(layer, layer)}.{kind}"] = value
    return original


def make_z_image_parts() -> dict[str, Any]:
    """Return the parts of Z-Image."""
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

    tokenizer, qwen3 = make_qwen3()
    return {
        "transformer": make_z_image_transformer(),
        "text_encoder": qwen3,
        "tokenizer": tokenizer,
        "vae": make_vae16(scaling_factor=0.3611, shift_factor=0.1159),
        "scheduler": FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    }


FLUX2_TRANSFORMER = {
    "in_channels": 128, "num_layers": 2, "num_single_layers": 2, "attention_head_dim": 16, "num_attention_heads": 2,
    "joint_attention_dim": 48, "timestep_guidance_channels": 16, "axes_dims_rope": (4, 4, 4, 4),
    "guidance_embeds": False,
}  # fmt: skip


def make_flux2_transformer(**changes: Any) -> Any:
    """Return a transformer of FLUX.2 klein."""
    import torch
    from diffusers.models.transformers.transformer_flux2 import Flux2Transformer2DModel

    torch.manual_seed(6)
    transformer = Flux2Transformer2DModel(**{**FLUX2_TRANSFORMER, **changes})
    torch.nn.init.normal_(transformer.proj_out.weight, std=0.3)
    for blocks in (transformer.transformer_blocks, transformer.single_transformer_blocks, transformer.context_embedder):
        for weight in blocks.parameters():
            weight.data *= 2.5 if weight.ndim > 1 else 1.0  # so that the text has an effect
    return transformer.eval()


def original_flux2_names(weights: "dict[str, Any]") -> dict[str, Any]:
    """Return a FLUX.2 transformer's tensors with the names and the fused layers of Black Forest Labs' files."""
    import torch

    from invokeclone.components.flux.single_files import count_blocks
    from invokeclone.families.flux2.single_files import NAMES

    layers = [*NAMES.outer]
    for kind, blocks, names in (
        ("double", "transformer_blocks", NAMES.double), ("single", "single_transformer_blocks", NAMES.single),
    ):  # fmt: skip
        layers += [
            f"{kind}_blocks.{number}.{name}" for number in range(count_blocks(weights, blocks)) for name in names
        ]
    original = {}
    for layer in layers:
        parts = [weights[f"{m}.weight"] for m in NAMES.module_names(layer) if f"{m}.weight" in weights]
        if parts:
            tensor = torch.cat(parts)
            tensor = torch.cat(tensor.chunk(2)[::-1]) if layer.startswith("final_layer.adaLN") else tensor
            original[f"{layer}.{'scale' if layer.endswith('_norm') else 'weight'}"] = tensor.clone()
    return original


def make_flux2_vae(**changes: Any) -> Any:
    """Return FLUX.2's autoencoder, with statistics that differ by channel."""
    import torch
    from diffusers.models.autoencoders.autoencoder_kl_flux2 import AutoencoderKLFlux2

    torch.manual_seed(7)
    sizes = {"block_out_channels": (8, 8, 16, 16), "layers_per_block": 1, "norm_num_groups": 4, "latent_channels": 32}
    vae = AutoencoderKLFlux2(**{**sizes, **changes}).eval()
    vae.bn.running_mean.uniform_(-0.5, 0.5)
    vae.bn.running_var.uniform_(0.5, 2.0)
    return vae


def make_flux2_parts() -> dict[str, Any]:
    """Return the parts of FLUX.2 klein."""
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler

    tokenizer, qwen3 = make_qwen3(16, 28)
    return {
        "transformer": make_flux2_transformer(),
        "text_encoder": qwen3,
        "tokenizer": tokenizer,
        "vae": make_flux2_vae(),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
    }


@dataclass
class InstalledModels:
    """The context's models interface, with several models by their keys."""

    cache: "ModelCache"
    records: dict[str, Any]

    def exists(self, identifier: Any) -> bool:
        return getattr(identifier, "key", identifier) in self.records

    def get_config(self, identifier: Any) -> Any:
        return self.records[getattr(identifier, "key", identifier)]

    def load(self, identifier: ModelIdentifierField, submodel_type: Any = None) -> Any:
        from invokeclone.engine.loading import loaders

        record = self.get_config(identifier)
        return loaders.load(self.cache, record, Path(record.path), submodel_type or identifier.submodel_type)

    def get_absolute_path(self, record: Any) -> Path:
        return Path(record.path)

    def search_by_attrs(self, **attributes: Any) -> list[Any]:
        return [r for r in self.records.values() if all(getattr(r, n) == v for n, v in attributes.items())]

    def add(
        self, folder: Path, base: BaseModelType, model_type: ModelType, model_format: ModelFormat, **fields: Any
    ) -> ModelIdentifierField:
        """Add a record for a folder and return the reference to it."""
        name = folder.name
        self.records[name] = SimpleNamespace(
            key=name,
            hash="blake3:0",
            name=name,
            path=str(folder),
            base=base,
            type=model_type,
            format=model_format,
            **fields,
        )
        return ModelIdentifierField(key=name, hash="blake3:0", name=name, base=base, type=model_type)

    def add_main(self, folder: Path, base: BaseModelType) -> ModelIdentifierField:
        """Add a record for a pipeline's folder and return the reference to it."""
        return self.add(folder, base, ModelType.Main, ModelFormat.Diffusers)


def context_with(cache: "ModelCache") -> FakeContext:
    """Return a context for nodes without models yet."""
    return FakeContext(models=InstalledModels(cache, {}), config=FakeConfig(cache.settings))
