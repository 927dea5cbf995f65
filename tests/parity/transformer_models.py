"""The tiny models of the parity cases of transformer families, with weights that follow from names and shapes."""

import json
import shutil
from pathlib import Path
from typing import Any

from tests.parity.models import copy_vocabulary, make_tokenizer, text_config
from tests.parity.weights import certain, fill, value
from tests.tiny_flux import make_transformer, original_names
from tests.tiny_transformers import save_pipeline

TOKENIZERS = Path(__file__).parent / "tokenizers"


def make(folder: Path) -> None:
    """Write the models' folders."""
    _sd3(folder / "p-sd3")
    _cogview4(folder / "p-cogview4")
    _flux(folder)
    _flux2(folder / "p-flux2-klein")
    _z_image(folder / "p-z-image")


def _sd3(folder: Path) -> None:
    from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
    from transformers import CLIPTextModelWithProjection, T5Config, T5EncoderModel

    t5 = T5Config(
        vocab_size=300, d_model=2304, d_kv=8, d_ff=64, num_layers=1, num_heads=4, feed_forward_proj="gated-gelu"
    )
    transformer = SD3Transformer2DModel(
        sample_size=32, patch_size=2, in_channels=16, num_layers=2, attention_head_dim=8, num_attention_heads=4,
        joint_attention_dim=2304, caption_projection_dim=32, pooled_projection_dim=2048, out_channels=16,
        pos_embed_max_size=64,
    )  # fmt: skip
    networks = {
        "text_encoder": CLIPTextModelWithProjection(text_config(768)),
        "text_encoder_2": CLIPTextModelWithProjection(text_config(1280)),
        "text_encoder_3": T5EncoderModel(t5),
        "transformer": transformer,
        "vae": _vae(scaling_factor=1.5305, shift_factor=0.0609),
    }
    words = make_tokenizer()
    save_pipeline(
        folder, "StableDiffusion3Pipeline", _fill(networks, folder.name) | {"tokenizer": words, "tokenizer_2": words}
    )
    copy_vocabulary(folder)
    _add_tokenizer(folder, "tokenizer_3", "unigram", "T5TokenizerFast")


def _cogview4(folder: Path) -> None:
    from diffusers.models.transformers.transformer_cogview4 import CogView4Transformer2DModel
    from transformers import GlmConfig, GlmModel

    transformer = CogView4Transformer2DModel(
        patch_size=2, in_channels=16, out_channels=16, num_layers=2, attention_head_dim=16, num_attention_heads=4,
        text_embed_dim=64, time_embed_dim=32, condition_dim=16, pos_embed_max_size=64, sample_size=32,
        rope_axes_dim=(32, 32),
    )  # fmt: skip
    glm = GlmConfig(
        vocab_size=436, hidden_size=64, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, pad_token_id=0,
    )  # fmt: skip
    vae = _vae(scaling_factor=1.0, shift_factor=0.0)
    networks = {"text_encoder": GlmModel(glm), "transformer": transformer, "vae": vae}
    save_pipeline(folder, "CogView4Pipeline", _fill(networks, folder.name))
    _add_tokenizer(folder, "tokenizer", "glm", "PreTrainedTokenizerFast")


def _flux(folder: Path) -> None:
    """Write FLUX.1's single files with Black Forest Labs' names, and its text encoders and autoencoder."""
    import torch
    from safetensors.torch import save_file
    from transformers import CLIPTextModel, T5Config, T5EncoderModel

    for name, has_guidance in (("p-flux-dev", True), ("p-flux-schnell", False)):
        with torch.device("meta"):
            network = make_transformer(
                attention_head_dim=128, joint_attention_dim=4096, pooled_projection_dim=768, axes_dims_rope=(16, 56, 56),
                guidance_embeds=has_guidance,
            )  # fmt: skip
            shapes = {key: tensor.shape for key, tensor in original_names(network.state_dict()).items()}
        weights = {key: value(key, tuple(shape), "flux").bfloat16() for key, shape in shapes.items()}
        save_file(weights, folder / f"{name}.safetensors")
    vae_shapes = json.loads((Path(__file__).parent / "flux_vae_shapes.json").read_text())
    vae = {key: value(key, tuple(shape), "flux-vae") for key, shape in vae_shapes.items()}
    half = vae["encoder.conv_out.weight"].shape[0] // 2
    vae["encoder.conv_out.weight"][half:], vae["encoder.conv_out.bias"][half:] = 0, -30
    save_file(vae, folder / "p-flux-vae.safetensors")
    config = T5Config(
        vocab_size=300, d_model=4096, d_kv=8, d_ff=64, num_layers=1, num_heads=4, feed_forward_proj="gated-gelu"
    )
    t5 = fill(T5EncoderModel(config), salt="flux-t5").bfloat16()
    t5.save_pretrained(folder / "p-flux-t5" / "text_encoder_2", max_shard_size="1MB")
    shutil.copytree(TOKENIZERS / "unigram", folder / "p-flux-t5" / "tokenizer_2")
    clip = folder / "p-flux-clip"
    fill(CLIPTextModel(text_config(768)), salt="flux-clip").save_pretrained(clip / "text_encoder")
    make_tokenizer().save_pretrained(clip / "tokenizer")
    copy_vocabulary(clip)


def _z_image(folder: Path) -> None:
    from diffusers.models.transformers.transformer_z_image import ZImageTransformer2DModel
    from transformers import Qwen3Config, Qwen3ForCausalLM

    words = len(json.loads((TOKENIZERS / "qwen" / "tokenizer.json").read_text())["model"]["vocab"])
    qwen3 = Qwen3Config(
        vocab_size=words, hidden_size=64, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, tie_word_embeddings=True,
    )  # fmt: skip
    transformer = ZImageTransformer2DModel(
        in_channels=16, dim=64, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=64,
        axes_dims=[8, 12, 12], axes_lens=[1024, 512, 512],
    )  # fmt: skip
    vae = _vae(scaling_factor=0.3611, shift_factor=0.1159)
    networks = {"text_encoder": Qwen3ForCausalLM(qwen3), "transformer": transformer, "vae": vae}
    save_pipeline(folder, "ZImagePipeline", _fill(networks, folder.name))
    _add_tokenizer(folder, "tokenizer", "qwen", "Qwen2TokenizerFast")


def _flux2(folder: Path) -> None:
    from diffusers.models.autoencoders.autoencoder_kl_flux2 import AutoencoderKLFlux2
    from diffusers.models.transformers.transformer_flux2 import Flux2Transformer2DModel
    from transformers import Qwen3Config, Qwen3ForCausalLM

    shutil.copytree(TOKENIZERS / "qwen", folder / "tokenizer")
    words = len(json.loads((folder / "tokenizer" / "tokenizer.json").read_text())["model"]["vocab"])
    qwen3 = Qwen3Config(
        vocab_size=words, hidden_size=64, intermediate_size=64, num_hidden_layers=36, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, tie_word_embeddings=True,
    )  # fmt: skip
    transformer = Flux2Transformer2DModel(
        in_channels=128, num_layers=1, num_single_layers=2, attention_head_dim=32, num_attention_heads=2,
        joint_attention_dim=192, timestep_guidance_channels=32, axes_dims_rope=(8, 8, 8, 8), guidance_embeds=False,
    )  # fmt: skip
    vae = AutoencoderKLFlux2(
        block_out_channels=(16, 32, 32, 32), layers_per_block=1, norm_num_groups=8, latent_channels=32, sample_size=256
    )
    networks = {"text_encoder": Qwen3ForCausalLM(qwen3), "transformer": transformer, "vae": vae}
    save_pipeline(folder, "Flux2KleinPipeline", _fill(networks, folder.name))


def _vae(**config: Any) -> Any:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    return AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=16, block_out_channels=(16, 32, 32, 32), layers_per_block=1,
        norm_num_groups=8, down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        sample_size=512, use_quant_conv=False, use_post_quant_conv=False, **config,
    )  # fmt: skip


def _fill(networks: dict[str, Any], name: str) -> dict[str, Any]:
    for part, network in networks.items():
        fill(network, salt=f"{name}/{part}")
    certain(networks["vae"])
    return networks


def _add_tokenizer(folder: Path, part: str, source: str, class_name: str) -> None:
    shutil.copytree(TOKENIZERS / source, folder / part)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {part: ["transformers", class_name]}))
