"""Tensor names and shapes of published UNets, autoencoders, text encoders and adapters, with few blocks."""

from tests.models.identify.layouts import Shapes, conv, joined, linear, norms, prefixed

# Stable Diffusion


def _attention_blocks(b: str, width: int, context: int, depth: int) -> Shapes:
    block = lambda t: {  # noqa: E731
        **joined(linear(f"{t}.attn1.{name}", width, width) for name in ("to_q", "to_k", "to_v")),
        **linear(f"{t}.attn2.to_q", width, width),
        **linear(f"{t}.attn2.to_k", width, context),
        **linear(f"{t}.attn2.to_v", width, context),
        **linear(f"{t}.attn2.to_out.0", width, width, bias=True),
        **linear(f"{t}.ff.net.0.proj", 8 * width, width, bias=True),
        **linear(f"{t}.ff.net.2", width, 4 * width, bias=True),
    }
    return {
        **conv(f"{b}.proj_in", width, width, 1, 1),
        **joined(block(f"{b}.transformer_blocks.{i}") for i in range(depth)),
        **conv(f"{b}.proj_out", width, width, 1, 1),
    }


def encoder_of_unet(context: int = 768, channels: int = 4) -> Shapes:
    """Return the input and middle blocks of a UNet in CompVis' layout: SD1 768, SD2 1024, XL 2048, refiner 1280."""
    xl = context in {1280, 2048}
    first = 384 if context == 1280 else 320
    places = ((4, 2 * first, 2),) if xl else ((1, first, 1), (2, first, 1), (4, 2 * first, 1))
    return {
        **linear("time_embed.0", 4 * first, first, bias=True),
        **(linear("label_emb.0.0", 4 * first, 2816, bias=True) if xl else {}),
        **conv("input_blocks.0.0", first, channels),
        **conv("input_blocks.1.0.in_layers.2", first, first),
        **joined(_attention_blocks(f"input_blocks.{i}.1", width, context, depth) for i, width, depth in places),
        **_attention_blocks("middle_block.1", 4 * first, context, 2 if xl else 1),
    }


def unet(context: int = 768, channels: int = 4) -> Shapes:
    output = _attention_blocks("output_blocks.3.1", 1280, context, 1)
    return encoder_of_unet(context, channels) | output | conv("out.2", 4, 320)


def unet_library(context: int = 768, depth: int = 1) -> Shapes:
    """Return the attention of a UNet with diffusers' names."""
    return {
        **_attention_blocks("down_blocks.1.attentions.0", 640, context, depth),
        **_attention_blocks("mid_block.attentions.0", 1280, context, depth),
        **_attention_blocks("up_blocks.1.attentions.0", 1280, context, depth),
    }


def sd_checkpoint(context: int = 768, channels: int = 4) -> Shapes:
    text = "conditioner.embedders.0.transformer." if context == 2048 else "cond_stage_model.transformer."
    if context == 1280:
        text = "conditioner.embedders.0.model."
    return {
        **prefixed("model.diffusion_model.", unet(context, channels)),
        **prefixed("first_stage_model.", vae()),
        **prefixed(text, clip_text()),
        "alphas_cumprod": (1000,),
    }


def controlnet(context: int = 768, prefix: str = "control_model.") -> Shapes:
    return prefixed(
        prefix,
        encoder_of_unet(context)
        | conv("input_hint_block.0", 16, 3)
        | conv("zero_convs.0.0", 320, 320, 1, 1)
        | conv("middle_block_out.0", 1280, 1280, 1, 1),
    )


def controlnet_library(context: int = 768) -> Shapes:
    return {
        **conv("controlnet_cond_embedding.conv_in", 16, 3),
        **conv("conv_in", 320, 4),
        **(linear("add_embedding.linear_1", 1280, 2816, bias=True) if context == 2048 else {}),
        **_attention_blocks("down_blocks.1.attentions.0", 640, context, 2 if context == 2048 else 1),
        **_attention_blocks("mid_block.attentions.0", 1280, context, 1),
        **conv("controlnet_down_blocks.0", 320, 320, 1, 1),
        **conv("controlnet_mid_block", 1280, 1280, 1, 1),
    }


def ip_adapter(context: int = 768) -> Shapes:
    return {
        **linear("image_proj.proj", 4 * context, 1024, bias=True),
        **norms("image_proj.norm", context, "weight", "bias"),
        **joined(linear(f"ip_adapter.{i}.to_{m}_ip", 320, context) for i in (1, 3) for m in "kv"),
    }


def ip_adapter_flux() -> Shapes:
    return {
        **linear("ip_adapter_proj_model.proj", 16384, 768, bias=True),
        **norms("ip_adapter_proj_model.norm", 4096, "weight", "bias"),
        **joined(
            linear(f"double_blocks.{i}.processor.ip_adapter_double_stream_{m}_proj", 3072, 4096, bias=True)
            for i in range(2)
            for m in "kv"
        ),
    }


# Autoencoders


def vae(latents: int = 4, *, quant: bool = True) -> Shapes:
    """Return an autoencoder in CompVis' layout: 4 latent channels in SD, 16 in FLUX.1 and SD3 (without quant convolutions)."""
    middle = lambda b: joined(conv(f"{b}.mid.attn_1.{name}", 512, 512, 1, 1) for name in ("q", "k", "v", "proj_out"))  # noqa: E731
    return {
        **conv("encoder.conv_in", 128, 3),
        **conv("encoder.down.0.block.0.conv1", 128, 128),
        **middle("encoder"),
        **conv("encoder.conv_out", 2 * latents, 512),
        **conv("decoder.conv_in", 512, latents),
        **middle("decoder"),
        **conv("decoder.up.0.block.0.conv1", 128, 256),
        **conv("decoder.conv_out", 3, 128),
        **(conv("quant_conv", 2 * latents, 2 * latents, 1, 1) if quant else {}),
        **(conv("post_quant_conv", latents, latents, 1, 1) if quant else {}),
    }


def vae_flux2() -> Shapes:
    statistics = {f"bn.{name}": (128,) for name in ("running_mean", "running_var")}
    inner = conv("encoder.quant_conv", 64, 64, 1, 1) | conv("decoder.post_quant_conv", 32, 32, 1, 1)
    return vae(32, quant=False) | inner | statistics


def vae_video(latents: int = 16) -> Shapes:
    """Return the autoencoder of Qwen-Image and Wan with diffusers' names."""
    return {
        **conv("encoder.conv_in", 96, 3, 3, 3, 3),
        **conv("encoder.down_blocks.0.conv1", 96, 96, 3, 3, 3),
        **conv("decoder.conv_in", 384, latents, 3, 3, 3),
        **conv("decoder.up_blocks.0.resnets.0.conv1", 384, 384, 3, 3, 3),
        **conv("quant_conv", 2 * latents, 2 * latents, 1, 1, 1),
        **conv("post_quant_conv", latents, latents, 1, 1, 1),
    }


def vae_video_native(latents: int = 16) -> Shapes:
    """Return the same in the layout of Wan."""
    return {
        **conv("encoder.conv1", 96, 3, 3, 3, 3),
        **conv("encoder.downsamples.0.residual.2", 96, 96, 3, 3, 3),
        **conv("encoder.middle.0.residual.2", 384, 384, 3, 3, 3),
        **conv("conv1", 2 * latents, 2 * latents, 1, 1, 1),
        **conv("conv2", latents, latents, 1, 1, 1),
        **conv("decoder.conv1", 384, latents, 3, 3, 3),
        **conv("decoder.middle.0.residual.2", 384, 384, 3, 3, 3),
        **conv("decoder.upsamples.0.residual.2", 384, 384, 3, 3, 3),
    }


def pid(latents: int) -> Shapes:
    return {
        **linear("y_embedder.proj", 1536, 2304, bias=True),
        "y_pos_embedding": (1, 300, 1536),
        **linear("patch_blocks.0.attn.qkv_x", 4608, 1536),
        **linear("pixel_blocks.0.compress_to_attn", 1152, 4096),
        **conv("lq_proj.latent_proj.0", 512, latents),
        **conv("lq_proj.latent_proj.2", 512, 512),
        **joined(conv(f"lq_proj.latent_proj.3.block.{i}", 512, 512) for i in (2, 5)),
        **linear("lq_proj.gate_modules.0.content_proj", 1536, 3072, bias=True),
    }


# Encoders


def clip_text(width: int = 768) -> Shapes:
    return {
        "text_model.embeddings.token_embedding.weight": (49408, width),
        "text_model.embeddings.position_embedding.weight": (77, width),
        **joined(
            linear(f"text_model.encoder.layers.0.self_attn.{name}", width, width, bias=True)
            for name in ("q_proj", "k_proj", "v_proj", "out_proj")
        ),
        **linear("text_model.encoder.layers.0.mlp.fc1", 4 * width, width, bias=True),
    }


def clip_vision(width: int = 1024) -> Shapes:
    return {
        "vision_model.embeddings.class_embedding": (width,),
        "vision_model.embeddings.patch_embedding.weight": (width, 3, 14, 14),
        **linear("vision_model.encoder.layers.0.self_attn.q_proj", width, width, bias=True),
        **linear("visual_projection", 768, width),
    }


def language_model(
    width: int, layers: int, query: int, *, norm: bool, bias: bool = False, prefix: str = "model."
) -> Shapes:
    """Return a decoder in the layout of transformers, with its first and last layers."""
    block = lambda b: {  # noqa: E731
        **linear(f"{b}.self_attn.q_proj", query, width, bias=bias),
        **linear(f"{b}.self_attn.k_proj", 1024, width, bias=bias),
        **linear(f"{b}.self_attn.v_proj", 1024, width, bias=bias),
        **linear(f"{b}.self_attn.o_proj", width, query),
        **(norms(f"{b}.self_attn", 128, "q_norm.weight", "k_norm.weight") if norm else {}),
        **linear(f"{b}.mlp.gate_proj", 4 * width, width),
        **norms(b, width, "input_layernorm.weight"),
    }
    blocks = joined(block(f"layers.{i}") for i in (0, layers - 1))
    return prefixed(prefix, {"embed_tokens.weight": (32768, width), **blocks, "norm.weight": (width,)})


def vision_tower(prefix: str = "visual.") -> Shapes:
    return prefixed(prefix, {"patch_embed.proj.weight": (1280, 3, 2, 14, 14)} | linear("blocks.0.attn.qkv", 3840, 1280))


def language_gguf(width: int, layers: int, query: int, *, norm: bool, after: bool = False) -> Shapes:
    """Return a decoder in the layout of llama.cpp."""
    block = lambda b: {  # noqa: E731
        **linear(f"{b}.attn_q", query, width),
        **linear(f"{b}.attn_k", 1024, width),
        **linear(f"{b}.attn_output", width, query),
        **(norms(b, 128, "attn_q_norm.weight", "attn_k_norm.weight") if norm else {}),
        **(norms(b, width, "post_attention_norm.weight", "post_ffw_norm.weight") if after else {}),
        **linear(f"{b}.ffn_gate", 4 * width, width),
        **norms(b, width, "attn_norm.weight", "ffn_norm.weight"),
    }
    return {
        "token_embd.weight": (32768, width),
        **joined(block(f"blk.{i}") for i in (0, layers - 1)),
        "output_norm.weight": (width,),
    }


def t5_gguf(*, umt5: bool = False) -> Shapes:
    """Return a T5 encoder in the layout of llama.cpp; in UMT5, every layer has its own relative positions."""
    block = lambda b: joined(linear(f"{b}.attn_{m}", 4096, 4096) for m in "qkvo")  # noqa: E731
    return {
        "token_embd.weight": (256384 if umt5 else 32128, 4096),
        **block("enc.blk.0"),
        **block("enc.blk.1"),
        **{f"enc.blk.{i}.attn_rel_b.weight": (32, 64) for i in range(2 if umt5 else 1)},
        "enc.output_norm.weight": (4096,),
    }


def t5(*, umt5: bool = False) -> Shapes:
    """Return a T5 encoder in one file with transformers' names."""
    attention, feed_forward = "layer.0.SelfAttention", "layer.1.DenseReluDense"
    block = lambda b: joined(linear(f"{b}.{attention}.{m}", 4096, 4096) for m in "qkvo")  # noqa: E731
    shapes = {"shared.weight": (256384 if umt5 else 32128, 4096), "encoder.final_layer_norm.weight": (4096,)}
    for number in range(2):
        name = f"encoder.block.{number}"
        shapes |= block(name) | {f"{name}.{feed_forward}.wi_0.weight": (10240, 4096)}
        if umt5 or number == 0:
            shapes[f"{name}.{attention}.relative_attention_bias.weight"] = (32, 64)
    return shapes


def t5_int8() -> Shapes:
    name = "encoder.block.0.layer.0.SelfAttention.q"
    return {
        f"{name}.weight": (4096, 4096),
        f"{name}.SCB": (4096,),
        f"{name}.weight_format": (),
        "shared.weight": (32128, 4096),
    }
