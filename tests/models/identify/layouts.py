"""Tensor names and shapes of published models, with few blocks: what identification sees of a file.

Sizes are those of the published models, so that a test fails if a rule depends on others.
"""

from collections.abc import Iterable

Shapes = dict[str, tuple[int, ...]]


def linear(name: str, rows: int, columns: int, *, bias: bool = False) -> Shapes:
    return {f"{name}.weight": (rows, columns)} | ({f"{name}.bias": (rows,)} if bias else {})


def conv(name: str, rows: int, columns: int, *kernel: int) -> Shapes:
    return {f"{name}.weight": (rows, columns, *(kernel or (3, 3))), f"{name}.bias": (rows,)}


def norms(prefix: str, width: int, *names: str) -> Shapes:
    return {f"{prefix}.{name}": (width,) for name in names}


def joined(parts: Iterable[Shapes]) -> Shapes:
    return {name: shape for part in parts for name, shape in part.items()}


def prefixed(prefix: str, shapes: Shapes) -> Shapes:
    return {prefix + name: shape for name, shape in shapes.items()}


def without(shapes: Shapes, *beginnings: str) -> Shapes:
    return {name: shape for name, shape in shapes.items() if not name.startswith(beginnings)}


# FLUX


def _flux_stream(name: str, h: int, mlp: int, mlp_in: int, *, bias: bool) -> Shapes:
    return {
        **linear(f"{name}_attn.qkv", 3 * h, h, bias=bias),
        **norms(f"{name}_attn.norm", 128, "query_norm.scale", "key_norm.scale"),
        **linear(f"{name}_attn.proj", h, h, bias=bias),
        **linear(f"{name}_mlp.0", mlp, h, bias=bias),
        **linear(f"{name}_mlp.2", h, mlp_in, bias=bias),
    }


def flux(h: int = 3072, channels: int = 64, *, guidance: bool = True, singles: int = 2) -> Shapes:
    """FLUX.1 in the layout of Black Forest Labs: dev, or schnell without guidance; 384 channels in fill, 128 in tools."""
    double = lambda b: {  # noqa: E731
        **_flux_stream(f"{b}.img", h, 4 * h, 4 * h, bias=True),
        **_flux_stream(f"{b}.txt", h, 4 * h, 4 * h, bias=True),
        **linear(f"{b}.img_mod.lin", 6 * h, h, bias=True),
        **linear(f"{b}.txt_mod.lin", 6 * h, h, bias=True),
    }
    single = lambda b: {  # noqa: E731
        **linear(f"{b}.linear1", 7 * h, h, bias=True),
        **linear(f"{b}.linear2", h, 5 * h, bias=True),
        **norms(f"{b}.norm", 128, "query_norm.scale", "key_norm.scale"),
        **linear(f"{b}.modulation.lin", 3 * h, h, bias=True),
    }
    embedders = ["time_in", "vector_in", *(["guidance_in"] if guidance else [])]
    return {
        **linear("img_in", h, channels, bias=True),
        **linear("txt_in", h, 4096, bias=True),
        **joined(linear(f"{n}.in_layer", h, 768 if n == "vector_in" else 256, bias=True) for n in embedders),
        **joined(linear(f"{n}.out_layer", h, h, bias=True) for n in embedders),
        **joined(double(f"double_blocks.{i}") for i in range(2)),
        **joined(single(f"single_blocks.{i}") for i in range(singles)),
        **linear("final_layer.linear", 64, h, bias=True),
        **linear("final_layer.adaLN_modulation.1", 2 * h, h, bias=True),
    }


def chroma() -> Shapes:
    """Chroma: FLUX.1 schnell whose modulations come from a network of its own."""
    blocks = {n: s for n, s in flux(guidance=False).items() if "_mod." not in n and ".modulation." not in n}
    return {
        **without(blocks, "time_in", "vector_in", "final_layer.adaLN"),
        **linear("distilled_guidance_layer.in_proj", 5120, 64, bias=True),
        **linear("distilled_guidance_layer.layers.0.in_layer", 5120, 5120, bias=True),
        **linear("distilled_guidance_layer.out_proj", 3072, 5120, bias=True),
    }


def flux2(h: int = 3072, context: int = 7680, *, guidance: bool = False) -> Shapes:
    """FLUX.2 klein 4B, 9B (4096, 12288) or dev (6144, 15360, guidance) in the layout of Black Forest Labs."""
    double = lambda b: {  # noqa: E731
        **_flux_stream(f"{b}.img", h, 6 * h, 3 * h, bias=False),
        **_flux_stream(f"{b}.txt", h, 6 * h, 3 * h, bias=False),
    }
    single = lambda b: {  # noqa: E731
        **linear(f"{b}.linear1", 9 * h, h),
        **linear(f"{b}.linear2", h, 4 * h),
        **norms(f"{b}.norm", 128, "query_norm.scale", "key_norm.scale"),
    }
    embedders = ["time_in", *(["guidance_in"] if guidance else [])]
    return {
        **linear("img_in", h, 128),
        **linear("txt_in", h, context),
        **joined(linear(f"{n}.in_layer", h, 256) | linear(f"{n}.out_layer", h, h) for n in embedders),
        **linear("double_stream_modulation_img.lin", 6 * h, h),
        **linear("double_stream_modulation_txt.lin", 6 * h, h),
        **linear("single_stream_modulation.lin", 3 * h, h),
        **joined(double(f"double_blocks.{i}") for i in range(2)),
        **joined(single(f"single_blocks.{i}") for i in range(2)),
        **linear("final_layer.linear", 128, h),
        **linear("final_layer.adaLN_modulation.1", 2 * h, h),
    }


def joint_attention(b: str, h: int, *, bias: bool = True) -> Shapes:
    """Return the attention that image and text tokens share in diffusers' transformers."""
    names = ("to_q", "to_k", "to_v", "add_q_proj", "add_k_proj", "add_v_proj", "to_out.0", "to_add_out")
    return joined(linear(f"{b}.attn.{name}", h, h, bias=bias) for name in names)


def flux_library(h: int = 3072) -> Shapes:
    """Return the blocks of FLUX.1 with diffusers' names."""
    return {
        **joined(joint_attention(f"transformer_blocks.{i}", h) for i in range(2)),
        **linear("transformer_blocks.0.norm1.linear", 6 * h, h, bias=True),
        **linear("transformer_blocks.0.norm1_context.linear", 6 * h, h, bias=True),
        **linear("transformer_blocks.0.ff.net.0.proj", 4 * h, h, bias=True),
        **linear("transformer_blocks.0.ff.net.2", h, 4 * h, bias=True),
        **linear("transformer_blocks.0.ff_context.net.0.proj", 4 * h, h, bias=True),
        **linear("transformer_blocks.0.ff_context.net.2", h, 4 * h, bias=True),
        **joined(linear(f"single_transformer_blocks.0.attn.{name}", h, h, bias=True) for name in ("to_q", "to_k", "to_v")),
        **linear("single_transformer_blocks.0.proj_mlp", 4 * h, h, bias=True),
        **linear("single_transformer_blocks.0.proj_out", h, 5 * h, bias=True),
    }  # fmt: skip


def flux2_library(h: int) -> Shapes:
    """Return the blocks of FLUX.2 with diffusers' names."""
    return {
        **joint_attention("transformer_blocks.0", h, bias=False),
        **linear("transformer_blocks.0.ff.linear_in", 6 * h, h),
        **linear("transformer_blocks.0.ff.linear_out", h, 3 * h),
        **linear("transformer_blocks.0.ff_context.linear_in", 6 * h, h),
        **linear("single_transformer_blocks.0.attn.to_qkv_mlp_proj", 9 * h, h),
        **linear("single_transformer_blocks.0.attn.to_out", h, 4 * h),
    }


def flux_controlnet_xlabs() -> Shapes:
    return {
        **without(flux(singles=0), "final_layer"),
        **joined(conv(f"input_hint_block.{k}", 16, 3 if k == 0 else 16) for k in range(0, 16, 2)),
        **linear("pos_embed_input", 3072, 64, bias=True),
        **joined(linear(f"controlnet_blocks.{i}", 3072, 3072, bias=True) for i in range(2)),
    }


def flux_controlnet_instantx(*, library: bool = True) -> Shapes:
    return {
        **(
            linear("x_embedder", 3072, 64) | linear("context_embedder", 3072, 4096) | flux_library()
            if library
            else flux()
        ),
        **linear("controlnet_x_embedder", 3072, 64, bias=True),
        **linear("controlnet_blocks.0", 3072, 3072, bias=True),
        "controlnet_mode_embedder.weight": (10, 3072),
    }


def flux_control_lora() -> Shapes:
    """Return the LoRAs of FLUX.1's tools: every layer of the transformer, and its norms as they are."""
    layers = {n.removesuffix(".weight"): s for n, s in flux(channels=128).items() if n.endswith(".weight")}
    return {
        **joined({f"{n}.lora_A.weight": (128, s[1]), f"{n}.lora_B.weight": (s[0], 128)} for n, s in layers.items()),
        **{f"{n}.lora_B.bias": (s[0],) for n, s in layers.items()},
        **{n: s for n, s in flux().items() if n.endswith(".scale")},
    }


# Other transformers


def z_image(h: int = 3840, caption: int = 2560, *, tokens: bool = True) -> Shapes:
    """Z-Image, or Lumina Image 2 (2304, 2304, without tokens), which has the same names."""
    block = lambda b: {  # noqa: E731
        **linear(f"{b}.attention.qkv", 3 * h, h),
        **linear(f"{b}.attention.out", h, h),
        **norms(f"{b}.attention", 128, "q_norm.weight", "k_norm.weight"),
        **linear(f"{b}.feed_forward.w1", 10240, h),
        **linear(f"{b}.feed_forward.w2", h, 10240),
        **linear(f"{b}.feed_forward.w3", 10240, h),
        **norms(b, h, "attention_norm1.weight", "ffn_norm1.weight"),
    }
    return {
        **({"x_pad_token": (1, h), "cap_pad_token": (1, h)} if tokens else {}),
        **linear("x_embedder", h, 64, bias=True),
        "cap_embedder.0.weight": (caption,),
        **linear("cap_embedder.1", h, caption, bias=True),
        **linear("t_embedder.mlp.0", 1024, 256, bias=True),
        **joined(block(b) for b in ("noise_refiner.0", "context_refiner.0", "layers.0", "layers.1")),
        **linear("layers.0.adaLN_modulation.0", 4 * h, 256, bias=True),
        **linear("final_layer.linear", 64, h, bias=True),
    }


def z_image_library(h: int = 3840) -> Shapes:
    """Return the layers of Z-Image with diffusers' names."""
    return {
        **joined(linear(f"layers.0.attention.{name}", h, h) for name in ("to_q", "to_k", "to_v", "to_out.0")),
        **joined(linear(f"layers.0.feed_forward.{name}", 10240, h) for name in ("w1", "w3")),
        **linear("layers.0.feed_forward.w2", h, 10240),
    }


def z_image_controlnet(channels: int = 33) -> Shapes:
    return {
        **linear("control_all_x_embedder.2-1", 3840, 4 * channels, bias=True),
        **joined(prefixed("control_", z_image_library()) for _ in range(1)),
        **prefixed("control_noise_refiner.0.", {"attention.to_q.weight": (3840, 3840)}),
        **linear("control_layers.0.before_proj", 3840, 3840, bias=True),
        **linear("control_layers.0.after_proj", 3840, 3840, bias=True),
        "x_pad_token": (1, 3840),
    }


def qwen_image(h: int = 3072) -> Shapes:
    block = lambda b: {  # noqa: E731
        **joint_attention(b, h),
        **joined(linear(f"{b}.{s}_mod.1", 6 * h, h, bias=True) for s in ("img", "txt")),
        **joined(linear(f"{b}.{s}_mlp.net.0.proj", 4 * h, h, bias=True) for s in ("img", "txt")),
        **joined(linear(f"{b}.{s}_mlp.net.2", h, 4 * h, bias=True) for s in ("img", "txt")),
    }
    return {
        **linear("time_text_embed.timestep_embedder.linear_1", h, 256, bias=True),
        "txt_norm.weight": (3584,),
        **linear("img_in", h, 64, bias=True),
        **linear("txt_in", h, 3584, bias=True),
        **joined(block(f"transformer_blocks.{i}") for i in range(2)),
        **linear("norm_out.linear", 2 * h, h, bias=True),
        **linear("proj_out", 64, h, bias=True),
    }


def krea2(h: int = 6144) -> Shapes:
    """Krea-2 in its own layout."""
    block = lambda b, w, inner: {  # noqa: E731
        **joined(linear(f"{b}.attn.{name}", w, w) for name in ("wq", "wo", "gate")),
        **joined(linear(f"{b}.attn.{name}", w // 4, w) for name in ("wk", "wv")),
        **norms(f"{b}.attn.qknorm", 128, "qnorm.scale", "knorm.scale"),
        **joined(linear(f"{b}.mlp.{name}", inner, w) for name in ("gate", "up")),
        **linear(f"{b}.mlp.down", w, inner),
        **norms(b, w, "prenorm.scale", "postnorm.scale"),
    }
    return {
        **linear("first", h, 64, bias=True),
        **linear("tmlp.0", h, 256, bias=True),
        **linear("tmlp.2", h, h, bias=True),
        **linear("tproj.1", 6 * h, h, bias=True),
        "txtmlp.0.scale": (2560,),
        **linear("txtmlp.1", h, 2560, bias=True),
        **linear("txtmlp.3", h, h, bias=True),
        **linear("txtfusion.projector", 1, 12),
        **block("txtfusion.layerwise_blocks.0", 2560, 6912),
        **block("blocks.0", h, 16384),
        "blocks.0.mod.lin": (6 * h,),
        **linear("last.linear", 64, h, bias=True),
    }


def krea2_library(h: int = 6144) -> Shapes:
    """Krea-2 with diffusers' names."""
    block = lambda b, w, inner: {  # noqa: E731
        **joined(linear(f"{b}.attn.{name}", w, w) for name in ("to_q", "to_out.0", "to_gate")),
        **joined(linear(f"{b}.attn.{name}", w // 4, w) for name in ("to_k", "to_v")),
        **joined(linear(f"{b}.ff.{name}", inner, w) for name in ("gate", "up")),
        **linear(f"{b}.ff.down", w, inner),
    }
    return {
        **linear("img_in", h, 64, bias=True),
        **linear("time_embed.linear_1", h, 256, bias=True),
        **linear("time_mod_proj", 6 * h, h, bias=True),
        **linear("text_fusion.projector", 1, 12),
        **block("text_fusion.layerwise_blocks.0", 2560, 6912),
        **linear("txt_in.linear_1", h, 2560, bias=True),
        **block("transformer_blocks.0", h, 16384),
        **linear("final_layer.linear", 64, h, bias=True),
    }


def wan(h: int = 5120, channels: int = 16) -> Shapes:
    """Wan in its own layout: A14B text or image (36 channels) to video, or 5B (3072, 48)."""
    attention = ("q", "k", "v", "o")
    block = lambda b: {  # noqa: E731
        **joined(linear(f"{b}.{a}_attn.{n}", h, h, bias=True) for a in ("self", "cross") for n in attention),
        **joined(norms(f"{b}.{a}_attn", h, "norm_q.weight", "norm_k.weight") for a in ("self", "cross")),
        **linear(f"{b}.ffn.0", 13824, h, bias=True),
        **linear(f"{b}.ffn.2", h, 13824, bias=True),
        f"{b}.modulation": (1, 6, h),
    }
    return {
        **conv("patch_embedding", h, channels, 1, 2, 2),
        **linear("text_embedding.0", h, 4096, bias=True),
        **linear("text_embedding.2", h, h, bias=True),
        **linear("time_embedding.0", h, 256, bias=True),
        **linear("time_projection.1", 6 * h, h, bias=True),
        **block("blocks.0"),
        **block("blocks.1"),
        **linear("head.head", 64, h, bias=True),
    }


def wan_library(h: int = 5120, channels: int = 16) -> Shapes:
    """Wan with diffusers' names."""
    attention = ("to_q", "to_k", "to_v", "to_out.0")
    return {
        **conv("patch_embedding", h, channels, 1, 2, 2),
        **linear("condition_embedder.text_embedder.linear_1", h, 4096, bias=True),
        **joined(linear(f"blocks.0.attn{k}.{name}", h, h, bias=True) for k in (1, 2) for name in attention),
        **linear("blocks.0.ffn.net.0.proj", 13824, h, bias=True),
        **linear("blocks.0.ffn.net.2", h, 13824, bias=True),
        **linear("proj_out", 64, h, bias=True),
    }


def anima(h: int = 2048) -> Shapes:
    attention = ("q_proj", "k_proj", "v_proj", "output_proj")
    adaptive = ("self_attn", "cross_attn", "mlp")
    return {
        **linear("x_embedder.proj.1", h, 68),
        **linear("t_embedder.1.linear_1", h, h),
        "t_embedding_norm.weight": (h,),
        **joined(linear(f"blocks.0.self_attn.{name}", h, h) for name in attention),
        **joined(linear(f"blocks.0.cross_attn.{name}", h, 1024 if name in {"k_proj", "v_proj"} else h) for name in attention),
        **linear("blocks.0.mlp.layer1", 4 * h, h),
        **linear("blocks.0.mlp.layer2", h, 4 * h),
        **joined(linear(f"blocks.0.adaln_modulation_{name}.1", 256, h) for name in adaptive),
        **linear("final_layer.linear", 64, h),
        "llm_adapter.embed.weight": (32128, 1024),
        **joined(linear(f"llm_adapter.blocks.0.self_attn.{name}", 1024, 1024) for name in ("q_proj", "v_proj")),
        **linear("llm_adapter.blocks.0.mlp.0", 4096, 1024, bias=True),
    }  # fmt: skip


def anima_lllite(channels: int = 3) -> Shapes:
    module = lambda m: {  # noqa: E731
        **linear(f"{m}.down", 64, 2048, bias=True),
        **linear(f"{m}.mid", 64, 96, bias=True),
        **linear(f"{m}.cond_to_film", 128, 32, bias=True),
        **linear(f"{m}.up", 2048, 64, bias=True),
        f"{m}.depth_embed": (32,),
    }
    return {
        **conv("lllite_conditioning1.conv1", 16, channels, 4, 4),
        **conv("lllite_conditioning1.conv2", 16, 16),
        **conv("lllite_conditioning1.conv3", 32, 16, 4, 4),
        **linear("lllite_conditioning1.proj", 32, 32, bias=True),
        **joined(module(f"lllite_dit_blocks_0_{name}") for name in ("self_attn_q_proj", "cross_attn_q_proj", "mlp_layer1")),
    }  # fmt: skip


def sdxl_lllite() -> Shapes:
    module = "lllite_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
    return {
        **conv(f"{module}.conditioning1.0", 16, 3, 4, 4),
        **conv(f"{module}.conditioning1.2", 32, 16, 2, 2),
        **linear(f"{module}.down.0", 64, 640, bias=True),
        **linear(f"{module}.mid.0", 64, 96, bias=True),
        **linear(f"{module}.up.0", 640, 64, bias=True),
    }


def sd3(h: int = 2432) -> Shapes:
    """Stable Diffusion 3.5 in its own layout."""
    return {
        **conv("x_embedder.proj", h, 16, 2, 2),
        **linear("context_embedder", h, 4096, bias=True),
        **joined(linear(f"joint_blocks.0.{s}_block.attn.qkv", 3 * h, h, bias=True) for s in ("x", "context")),
        **joined(linear(f"joint_blocks.0.{s}_block.attn.proj", h, h, bias=True) for s in ("x", "context")),
        **linear("joint_blocks.0.x_block.mlp.fc1", 4 * h, h, bias=True),
        **linear("final_layer.linear", 64, h, bias=True),
    }


def sd3_library(h: int = 2432) -> Shapes:
    """Return the blocks of Stable Diffusion 3 with diffusers' names."""
    return {
        **joined(joint_attention(f"transformer_blocks.{i}", h) for i in range(2)),
        **linear("transformer_blocks.0.norm1_context.linear", 6 * h, h, bias=True),
        **linear("transformer_blocks.0.ff.net.0.proj", 4 * h, h, bias=True),
        **linear("transformer_blocks.0.ff_context.net.0.proj", 4 * h, h, bias=True),
    }
