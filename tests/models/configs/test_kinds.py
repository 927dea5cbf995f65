"""Which class every kind of model gets, from the deciding tensors and fields of its files alone."""

import pytest

from invokeclone.models.errors import InvalidModel
from invokeclone.models.files.model_files import ModelFiles
from invokeclone.models.identify import registry
from invokeclone.models.identify.identify import identify

FACTS = {"key": "k", "hash": "h", "path": "p", "file_size": 1, "name": "n", "source": "s", "source_type": "path"}

UNET = "model.diffusion_model.input_blocks"
FLUX = {
    "double_blocks.0.img_attn.norm.key_norm.scale": (128,),
    "img_in.weight": (3072, 64),
    "txt_in.weight": (3072, 4096),
}
GUIDED = FLUX | {"guidance_in.out_layer.weight": (3072, 3072)}
FLUX2 = FLUX | {"img_in.weight": (3072, 128), "txt_in.weight": (3072, 7680)}
Z_IMAGE = {"cap_embedder.1.weight": (3840, 2560), "context_refiner.0.attention.qkv.weight": (11520, 3840)}
QWEN_IMAGE = {"txt_in.weight": (3072, 3584), "txt_norm.weight": (3584,), "img_in.weight": (3072, 64)}
KREA2 = {"text_fusion.0.weight": (8, 8), "first.weight": (8, 8), "blocks.0.weight": (8, 8)}
WAN = {"patch_embedding.weight": (5120, 16, 1, 2, 2), "text_embedding.0.weight": (5120, 4096)}
ANIMA = {
    f"net.{part}0.weight": (8, 8) for part in ("llm_adapter.", "blocks.", "t_embedder.", "x_embedder.", "final_layer.")
}
SDNQ = {"layer.weight": (8, 8), "layer.scale": (8, 1)}
NF4 = {"double_blocks.0.img_attn.proj.weight.quant_state.bitsandbytes__nf4": (8,)}
QWEN3 = {"model.embed_tokens.weight": (10, 2560), "model.layers.0.self_attn.q_norm.weight": (128,)}
QWEN3_VL = QWEN3 | {"model.layers.35.mlp.weight": (1,), "visual.blocks.0.attn.weight": (1,)}
QWEN_VL = {"model.layers.0.self_attn.q_proj.bias": (8,), "visual.blocks.0.attn.weight": (1,)}
MISTRAL = {
    "model.embed_tokens.weight": (9, 5120),
    "model.layers.0.self_attn.q_proj.weight": (9, 9),
    "model.layers.39.x": (1,),
}
GGUF_MISTRAL = {"token_embd.weight": (9, 5120), "blk.0.attn_q.weight": (9, 9), "blk.29.x": (1,)}
GGUF_QWEN3 = {"token_embd.weight": (10, 4096), "blk.0.attn_q_norm.weight": (128,)}
GGUF_GEMMA2 = {"token_embd.weight": (10, 2304), "blk.0.post_ffw_norm.weight": (2304,)}


def lora(layer, width=8, out=8):
    return {f"{layer}.lora_A.weight": (4, width), f"{layer}.lora_B.weight": (out, 4)}


def kohya(layer, width=8):
    return {f"{layer}.lora_down.weight": (4, width), f"{layer}.lora_up.weight": (8, 4), f"{layer}.alpha": ()}


def unet(at="2.1", width=768, channels=4):
    return {
        f"{UNET}.0.0.weight": (320, channels, 3, 3),
        f"{UNET}.{at}.transformer_blocks.0.attn2.to_k.weight": (320, width),
    }


def decoder(*shape, **tensors):
    return {"decoder.conv_in.weight": shape, "encoder.conv_in.weight": (8, 3, *shape[2:]), **tensors}


ATTENTION = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
DEEP = "lora_unet_input_blocks_4_1_transformer_blocks_2_ff_net_2"
DIFFUSERS = "transformer.single_transformer_blocks.0.attn.to_q"
OMI = {"modelspec.sai_model_spec": "1.0.0", "ot_branch": "omi_format"}

FILES = [
    ("Main_Checkpoint_SD1_Config", "a", unet(), {"variant": "normal", "prediction_type": "epsilon"}),
    ("Main_Checkpoint_SD2_Config", "a", unet(width=1024, channels=5), {"variant": "depth", "prediction_type": "v_prediction"}),
    ("Main_Checkpoint_SDXL_Config", "a", unet("4.1", 2048, 9), {"variant": "inpaint"}),
    ("Main_Checkpoint_SDXLRefiner_Config", "a", unet("4.1", 1280), {"default_settings": None}),
    ("Main_Checkpoint_FLUX_Config", "a", FLUX, {"variant": "schnell"}),
    ("Main_Checkpoint_FLUX_Config", "a", {f"model.diffusion_model.{k}": v for k, v in GUIDED.items()}, {"variant": "dev"}),
    ("Main_Checkpoint_FLUX_Config", "a", GUIDED | {"img_in.weight": (3072, 384)}, {"variant": "dev_fill"}),
    ("Main_BnBNF4_FLUX_Config", "a", GUIDED | NF4, {"variant": "dev"}),
    ("Main_SDNQ_FLUX_Config", "a", GUIDED | SDNQ, {"variant": "dev", "config_path": None}),
    ("Main_Checkpoint_Flux2_Config", "a", FLUX2, {"variant": "klein_4b"}),
    ("Main_Checkpoint_Flux2_Config", "klein-base-9b", FLUX2 | {"txt_in.weight": (4096, 12288)}, {"variant": "klein_9b_base"}),
    ("Main_Checkpoint_Flux2_Config", "a", FLUX2 | {"txt_in.weight": (6144, 15360)}, {"variant": "dev"}),
    ("Main_SDNQ_Flux2_Config", "a", FLUX2 | SDNQ, {}),
    ("Main_Checkpoint_ZImage_Config", "a", Z_IMAGE, {"variant": "turbo"}),
    ("Main_SDNQ_ZImage_Config", "a", Z_IMAGE | SDNQ, {}),
    ("Main_Checkpoint_QwenImage_Config", "a", QWEN_IMAGE, {"variant": "generate"}),
    ("Main_Checkpoint_QwenImage_Config", "qwen_image_edit", QWEN_IMAGE, {"variant": "edit"}),
    ("Main_Checkpoint_QwenImage_Config", "credited", QWEN_IMAGE | {"__index_timestep_zero__": ()}, {"variant": "edit"}),
    ("Main_Checkpoint_Krea2_Config", "a", KREA2, {"variant": "krea2_turbo"}),
    ("Main_Checkpoint_Krea2_Config", "krea2-raw", KREA2, {"variant": "krea2_base"}),
    ("Main_Checkpoint_Wan_Config", "wan2.2_high_noise", WAN, {"variant": "t2v_a14b", "expert": "high"}),
    ("Main_Checkpoint_Wan_Config", "a", WAN | {"patch_embedding.weight": (5120, 36, 1, 2, 2)}, {"variant": "i2v_a14b"}),
    ("Main_Checkpoint_Wan_Config", "a", WAN | {"patch_embedding.weight": (3072, 48, 1, 2, 2)}, {"variant": "ti2v_5b", "expert": "none"}),
    ("Main_Checkpoint_Anima_Config", "a", ANIMA, {}),
    ("VAE_Checkpoint_SD1_Config", "a", decoder(512, 4, 3, 3), {}),
    ("VAE_Checkpoint_SD2_Config", "vae_sd2", decoder(512, 4, 3, 3), {}),
    ("VAE_Checkpoint_SDXL_Config", "sdxl_vae", decoder(512, 4, 3, 3), {}),
    ("VAE_Checkpoint_FLUX_Config", "ae", decoder(512, 16, 3, 3), {}),
    ("VAE_Checkpoint_Flux2_Config", "a", decoder(512, 32, 3, 3), {}),
    ("VAE_Checkpoint_Flux2_Config", "a", decoder(512, 16, 3, 3, **{"bn.running_mean": (128,)}), {}),
    ("VAE_Checkpoint_QwenImage_Config", "a", decoder(384, 16, 3, 3, 3), {}),
    ("VAE_Checkpoint_Wan_Config", "wan_vae", decoder(384, 16, 3, 3, 3), {"latent_channels": 16}),
    ("VAE_Checkpoint_Wan_Config", "a", decoder(384, 48, 3, 3, 3), {"latent_channels": 48}),
    ("VAE_Checkpoint_Anima_Config", "a", {"decoder.conv1.weight": (8, 16, 3, 3, 3), "decoder.middle.0.x": (1,)}, {}),
    ("PiDDecoder_Checkpoint_SDXL_Config", "a", {"lq_proj.weight": (512, 4, 1, 1)}, {"variant": "res2k_sr4x"}),
    ("PiDDecoder_Checkpoint_FLUX_Config", "a", {"net.lq_proj.0.weight": (512, 16, 1, 1)}, {}),
    ("PiDDecoder_Checkpoint_SD3_Config", "pid_sd3_2kto4k", {"lq_proj.weight": (512, 16, 1, 1)}, {"variant": "res2kto4k_sr4x"}),
    ("PiDDecoder_Checkpoint_QwenImage_Config", "qwen", {"lq_proj.weight": (512, 16, 1, 1)}, {}),
    ("PiDDecoder_Checkpoint_Flux2_Config", "a", {"lq_proj.weight": (512, 128, 1, 1)}, {}),
    ("ControlNet_Checkpoint_SD1_Config", "canny", {"control_model.input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight": (9, 768)}, {"default_settings.preprocessor": "canny_image_processor"}),
    ("ControlNet_Checkpoint_SD2_Config", "a", {"input_blocks.2.1.transformer_blocks.0.attn2.to_k.weight": (9, 1024)}, {"default_settings.preprocessor": None}),
    ("ControlNet_Checkpoint_SDXL_Config", "a", {"controlnet_mid_block.bias": (1280,)}, {}),
    ("ControlNet_Checkpoint_SDXL_Config", "a", {"controlnet_mid_block.bias": (1280,), "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight": (9, 2048)}, {}),
    ("ControlNet_Checkpoint_FLUX_Config", "a", {"input_hint_block.0.weight": (9, 3, 3, 3), "pos_embed_input.weight": (9, 9)}, {}),
    ("ControlNet_Checkpoint_FLUX_Config", "a", {"controlnet_x_embedder.weight": (9, 9), "controlnet_blocks.0.weight": (9, 9)}, {}),
    ("ControlNet_Checkpoint_ZImage_Config", "a", {"control_layers.0.weight": (9, 9), "context_refiner.0.weight": (9, 9)}, {}),
    ("ControlNet_Checkpoint_Anima_Config", "a", {"lllite_conditioning1.conv1.weight": (9, 3, 4, 4)}, {"cond_in_channels": 3}),
    ("LoRA_LyCORIS_SD1_Config", "a", kohya(ATTENTION, 768), {"default_settings.weight": None}),
    ("LoRA_LyCORIS_SD1_Config", "a", kohya("lora_te_text_model_encoder_layers_0_self_attn_q_proj", 768), {}),
    ("LoRA_LyCORIS_SD1_Config", "a", {f"{ATTENTION}.hada_w1_a": (320, 4), f"{ATTENTION}.hada_w1_b": (4, 768), f"{ATTENTION}.hada_w2_a": (320, 4)}, {}),
    ("LoRA_LyCORIS_SD1_Config", "a", {f"{ATTENTION}.lokr_w1": (8, 8), f"{ATTENTION}.lokr_w2": (40, 96)}, {}),
    ("LoRA_LyCORIS_SD2_Config", "a", kohya(ATTENTION, 1024), {}),
    ("LoRA_LyCORIS_SDXL_Config", "a", kohya(ATTENTION, 2048), {}),
    ("LoRA_LyCORIS_SDXL_Config", "a", kohya("lora_te1_text_model_encoder_layers_0_self_attn_q_proj", 768) | kohya("lora_te2_text_model_encoder_layers_0_self_attn_q_proj", 1280), {}),
    ("LoRA_LyCORIS_SDXL_Config", "a", kohya(DEEP), {}),
    ("LoRA_LyCORIS_FLUX_Config", "a", kohya("lora_unet_double_blocks_0_img_attn_qkv", 3072), {}),
    ("LoRA_LyCORIS_FLUX_Config", "a", kohya("lora_transformer_single_transformer_blocks_0_attn_to_q", 3072), {}),
    ("LoRA_LyCORIS_FLUX_Config", "a", lora(DIFFUSERS, 3072) | lora("transformer.transformer_blocks.0.attn.add_q_proj", 3072), {}),
    ("LoRA_LyCORIS_FLUX_Config", "a", lora("diffusion_model.double_blocks.0.img_attn.qkv", 3072), {}),
    ("LoRA_LyCORIS_FLUX_Config", "a", {"double_blocks.0.processor.qkv_lora1.down.weight": (4, 3072), "double_blocks.0.processor.proj_lora1.up.weight": (9, 4), "x.lora_A.weight": (1, 1)}, {}),
    ("LoRA_LyCORIS_Flux2_Config", "a", lora(DIFFUSERS, 3072) | lora("transformer.context_embedder", 7680), {"variant": "klein_4b"}),
    ("LoRA_LyCORIS_Flux2_Config", "a", kohya("lora_unet_double_blocks_0_img_attn_qkv", 6144), {"variant": "dev"}),
    ("LoRA_LyCORIS_Flux2_Config", "a", lora("transformer.single_transformer_blocks.0.attn.to_qkv_mlp_proj", 3072), {}),
    ("ControlLoRA_LyCORIS_FLUX_Config", "depth", lora("base_model.model.transformer.img_in", 128, 3072), {"default_settings.preprocessor": "depth_anything_image_processor"}),
    ("LoRA_LyCORIS_ZImage_Config", "a", lora("diffusion_model.layers.0.attention.to_q"), {"variant": None}),
    ("LoRA_LyCORIS_QwenImage_Config", "a", lora("transformer_blocks.0.attn.to_q", 3072), {}),
    ("LoRA_LyCORIS_Krea2_Config", "a", lora("diffusion_model.text_fusion.0.attn.to_q"), {}),
    ("LoRA_LyCORIS_Wan_Config", "low_noise", lora("diffusion_model.blocks.0.self_attn.q", 5120), {"variant": "a14b", "expert": "low"}),
    ("LoRA_LyCORIS_Wan_Config", "a", lora("diffusion_model.blocks.0.self_attn.q", 3072), {"variant": "5b", "expert": None}),
    ("LoRA_LyCORIS_Anima_Config", "a", lora("diffusion_model.blocks.0.self_attn.q_proj", 2048), {}),
    ("IPAdapter_Checkpoint_SD1_Config", "a", {"ip_adapter.1.to_k_ip.weight": (320, 768), "image_proj.proj.weight": (9, 9)}, {}),
    ("IPAdapter_Checkpoint_SD2_Config", "a", {"ip_adapter.1.to_k_ip.weight": (320, 1024)}, {}),
    ("IPAdapter_Checkpoint_SDXL_Config", "a", {"ip_adapter.1.to_k_ip.weight": (640, 2048)}, {}),
    ("IPAdapter_Checkpoint_FLUX_Config", "a", {"ip_adapter_proj_model.proj.weight": (9, 9), "double_blocks.0.processor.ip_adapter_double_stream_k_proj.weight": (9, 9)}, {}),
    ("FLUXRedux_Checkpoint_Config", "a", {"redux_up.weight": (12288, 1152), "redux_up.bias": (12288,), "redux_down.weight": (4096, 12288), "redux_down.bias": (4096,)}, {}),
    ("TI_File_SD1_Config", "a", {"emb_params": (4, 768)}, {}),
    ("TI_File_SD1_Config", "a", {"<cat>": (768,)}, {}),
    ("TI_File_SD2_Config", "a", {"emb_params": (4, 1024)}, {}),
    ("TI_File_SDXL_Config", "a", {"clip_l": (4, 768), "clip_g": (4, 1280)}, {}),
    ("Qwen3Encoder_Checkpoint_Config", "a", QWEN3, {"variant": "qwen3_4b"}),
    ("Qwen3Encoder_SDNQ_Config", "a", QWEN3 | SDNQ, {"variant": "qwen3_4b"}),
    ("Qwen3VLEncoder_Checkpoint_Config", "a", QWEN3_VL, {}),
    ("QwenVLEncoder_Checkpoint_Config", "a", QWEN_VL, {}),
    ("MistralEncoder_Checkpoint_Config", "a", MISTRAL, {"variant": "mistral3_24b"}),
    ("T5Encoder_BnBLLMint8_Config", "t5_llm_int8", {"encoder.block.0.layer.0.SelfAttention.q.SCB": (9,)}, {}),
    ("Spandrel_Checkpoint_Config", "4x", {"model.0.weight": (9, 3, 3, 3), "model.1.sub.0.RDB1.conv1.0.weight": (9, 9, 3, 3)}, {}),
]  # fmt: skip

GGUFS = [
    ("Main_GGUF_FLUX_Config", GUIDED, {"variant": "dev"}),
    ("Main_GGUF_Flux2_Config", FLUX2, {"variant": "klein_4b"}),
    ("Main_GGUF_ZImage_Config", Z_IMAGE, {}),
    ("Main_GGUF_QwenImage_Config", QWEN_IMAGE, {}),
    ("Main_GGUF_Krea2_Config", KREA2, {}),
    ("Main_GGUF_Wan_Config", WAN, {}),
    ("T5Encoder_GGUF_Config", {"enc.blk.0.attn_q.weight": (9, 9)}, {}),
    ("Qwen3Encoder_GGUF_Config", GGUF_QWEN3, {"variant": "qwen3_8b"}),
    ("MistralEncoder_GGUF_Config", GGUF_MISTRAL, {"variant": "cow_mistral3_small"}),
    ("Gemma2Encoder_GGUF_Config", GGUF_GEMMA2, {}),
]

QUANTIZED = {"quantization_config": {"quant_method": "sdnq"}}
INDEX = "model_index.json"
FOLDERS = [
    ("Main_Diffusers_SD2_Config", {INDEX: "StableDiffusionPipeline", "unet/config.json": {"cross_attention_dim": 1024}}, {}),
    ("Main_Diffusers_SDXL_Config", {INDEX: "StableDiffusionXLPipeline", "unet/config.json": {"cross_attention_dim": 2048}}, {"default_settings.width": 1024}),
    ("Main_Diffusers_SDXLRefiner_Config", {INDEX: "StableDiffusionXLImg2ImgPipeline", "unet/config.json": {"cross_attention_dim": 1280}}, {}),
    ("Main_Diffusers_SD3_Config", {INDEX: {"_class_name": "StableDiffusion3Pipeline", "text_encoder_3": ["transformers", "T5EncoderModel"], "scheduler": ["a", "b"]}}, {"submodels": {"text_encoder_3": {"path_or_prefix": "text_encoder_3", "model_type": "t5_encoder", "variant": None}}}),
    ("Main_Diffusers_FLUX_Config", {INDEX: "FluxPipeline", "transformer/config.json": {"guidance_embeds": True, "in_channels": 64}}, {"variant": "dev"}),
    ("Main_Diffusers_FLUX_Config", {"config.json": {"_class_name": "FluxTransformer2DModel", "guidance_embeds": False}}, {"variant": "schnell"}),
    ("Main_Diffusers_FLUX_Config", {INDEX: "FluxFillPipeline", "transformer/config.json": {"in_channels": 384}}, {"variant": "dev_fill"}),
    ("Main_SDNQ_Diffusers_FLUX_Config", {INDEX: "FluxPipeline", "transformer/config.json": QUANTIZED}, {}),
    ("Main_Diffusers_Flux2_Config", {INDEX: "Flux2Pipeline", "transformer/config.json": {"joint_attention_dim": 15360}}, {"variant": "dev", "default_settings.guidance": 3.5}),
    ("Main_Diffusers_Flux2_Config", {INDEX: "Flux2KleinPipeline", "transformer/config.json": {"joint_attention_dim": 12288}}, {"variant": "klein_9b", "default_settings.steps": 4}),
    ("Main_SDNQ_Diffusers_Flux2_Config", {INDEX: "Flux2KleinPipeline", "transformer/config.json": QUANTIZED}, {}),
    ("Main_Diffusers_CogView4_Config", {INDEX: "CogView4Pipeline"}, {"default_settings": None}),
    ("Main_Diffusers_ZImage_Config", {INDEX: "ZImagePipeline", "scheduler/scheduler_config.json": {"shift": 6.0}}, {"variant": "zbase", "default_settings.steps": 50}),
    ("Main_Diffusers_ZImage_Config", {INDEX: "ZImagePipeline", "scheduler/scheduler_config.json": {"shift": 3.0}}, {"variant": "turbo", "default_settings.steps": 9}),
    ("Main_SDNQ_Diffusers_ZImage_Config", {INDEX: "ZImagePipeline", "transformer/config.json": QUANTIZED}, {}),
    ("Main_Diffusers_ErnieImage_Config", {INDEX: "ErnieImagePipeline"}, {"default_settings.steps": 50}),
    ("Main_Diffusers_Ideogram4_Config", {INDEX: "Ideogram4Pipeline"}, {"default_settings.cfg_scale": 7}),
    ("Main_Diffusers_QwenImage_Config", {INDEX: "QwenImageEditPlusPipeline"}, {"variant": "edit", "default_settings.steps": 40}),
    ("Main_Diffusers_QwenImage_Config", {INDEX: "QwenImagePipeline"}, {"variant": "generate"}),
    ("Main_Diffusers_Krea2_Config", {INDEX: {"_class_name": "Krea2Pipeline", "is_distilled": False}}, {"variant": "krea2_base", "default_settings.cfg_scale": 5.5}),
    ("Main_Diffusers_Wan_Config", {INDEX: {"_class_name": "WanPipeline", "transformer_2": ["diffusers", "W"], "boundary_ratio": 0.875}}, {"variant": "t2v_a14b", "has_dual_expert": True, "boundary_ratio": 0.875}),
    ("Main_Diffusers_Wan_Config", {INDEX: "WanPipeline", "transformer/config.json": {"in_channels": 48}}, {"variant": "ti2v_5b", "has_dual_expert": False, "default_settings.steps": 30}),
    ("VAE_Diffusers_SDXL_Config", {"config.json": {"_class_name": "AutoencoderKL", "scaling_factor": 0.13025, "sample_size": 1024}}, {}),
    ("VAE_Diffusers_Flux2_Config", {"config.json": "AutoencoderKLFlux2"}, {}),
    ("VAE_Diffusers_Wan_Config", {"config.json": {"_class_name": "AutoencoderKLWan", "z_dim": 48}}, {"latent_channels": 48}),
    ("ControlNet_Diffusers_SD1_Config", {"config.json": {"_class_name": "ControlNetModel", "cross_attention_dim": 768}}, {}),
    ("ControlNet_Diffusers_SD2_Config", {"config.json": {"_class_name": "ControlNetModel", "cross_attention_dim": 1024}}, {}),
    ("ControlNet_Diffusers_SDXL_Config", {"config.json": {"_class_name": "ControlNetModel", "cross_attention_dim": 2048}}, {}),
    ("ControlNet_Diffusers_FLUX_Config", {"config.json": "FluxControlNetModel"}, {}),
    ("T2IAdapter_Diffusers_SD1_Config", {"config.json": {"_class_name": "T2IAdapter", "adapter_type": "light_adapter"}}, {}),
    ("T2IAdapter_Diffusers_SDXL_Config", {"config.json": {"_class_name": "T2IAdapter", "adapter_type": "full_adapter_xl"}}, {}),
    ("CLIPEmbed_Diffusers_L_Config", {"config.json": {"architectures": ["CLIPTextModel"], "hidden_size": 768}}, {"variant": "large"}),
    ("CLIPEmbed_Diffusers_G_Config", {"config.json": {"architectures": ["CLIPTextModelWithProjection"], "hidden_size": 1280}}, {"variant": "gigantic"}),
    ("CLIPVision_Diffusers_Config", {"config.json": {"architectures": ["CLIPVisionModelWithProjection"]}}, {}),
    ("SigLIP_Diffusers_Config", {"config.json": {"architectures": ["SiglipModel"]}}, {}),
    ("LlavaOnevision_Diffusers_Config", {"config.json": {"architectures": ["LlavaOnevisionForConditionalGeneration"]}}, {}),
    ("TextLLM_Diffusers_Config", {"config.json": {"architectures": ["LlamaForCausalLM"]}, "tokenizer.json": {}}, {}),
    ("T5Encoder_T5Encoder_Config", {"text_encoder_2/config.json": {"architectures": ["T5EncoderModel"]}, "text_encoder_2/model.safetensors.index.json": {"weight_map": {}}}, {}),
    ("T5Encoder_SDNQ_Config", {"text_encoder_2/config.json": {"architectures": ["T5EncoderModel"]} | QUANTIZED}, {}),
    ("Qwen3Encoder_Qwen3Encoder_Config", {"config.json": {"architectures": ["Qwen3ForCausalLM"], "hidden_size": 1024}, "tokenizer.json": {}}, {"variant": "qwen3_06b"}),
    ("Qwen3Encoder_SDNQ_Folder_Config", {"config.json": {"architectures": ["Qwen3Model"], "hidden_size": 2560} | QUANTIZED}, {}),
    ("Qwen3VLEncoder_Qwen3VLEncoder_Config", {"config.json": {"architectures": ["Qwen3VLForConditionalGeneration"], "text_config": {"hidden_size": 2560, "num_hidden_layers": 36}}}, {}),
    ("QwenVLEncoder_Diffusers_Config", {"text_encoder/config.json": {"architectures": ["Qwen2_5_VLForConditionalGeneration"]}}, {}),
    ("MistralEncoder_Diffusers_Config", {"config.json": {"architectures": ["Mistral3ForConditionalGeneration"], "text_config": {"hidden_size": 5120, "num_hidden_layers": 40}}}, {"variant": "mistral3_24b"}),
    ("Gemma2Encoder_Gemma2Encoder_Config", {"config.json": {"architectures": ["Gemma2Model"], "hidden_size": 2304}}, {}),
    ("WanT5Encoder_WanT5Encoder_Config", {"config.json": {"architectures": ["UMT5EncoderModel"], "model_type": "umt5"}}, {}),
]  # fmt: skip

LORA_FOLDERS = [
    ("LoRA_Diffusers_SD1_Config", lora("unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k", 768)),
    ("LoRA_Diffusers_SD2_Config", lora("unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k", 1024)),
    ("LoRA_Diffusers_SDXL_Config", lora("unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k", 2048)),
    ("LoRA_Diffusers_FLUX_Config", lora(DIFFUSERS, 3072)),
    ("LoRA_Diffusers_Flux2_Config", lora(DIFFUSERS, 4096)),
    ("LoRA_Diffusers_ZImage_Config", lora("transformer.layers.0.attention.to_q")),
]

OTHERS = {
    "Main_Diffusers_SD1_Config", "VAE_Diffusers_SD1_Config", "LoRA_OMI_SDXL_Config", "LoRA_OMI_FLUX_Config",
    "TI_Folder_SD1_Config", "TI_Folder_SD2_Config", "TI_Folder_SDXL_Config", "IPAdapter_InvokeAI_SD1_Config",
    "IPAdapter_InvokeAI_SD2_Config", "IPAdapter_InvokeAI_SDXL_Config", "ExternalApiModelConfig", "Unknown_Config",
}  # fmt: skip
"""Classes that tests of their own lead to, here and in test_identify; no file leads to an external model."""


def check(path, expected, fields):
    config = identify(ModelFiles(path), FACTS, {}, allow_unknown=False)
    assert type(config).__name__ == expected
    dumped = config.model_dump(mode="json")
    for name, value in fields.items():
        part = dumped
        for step in name.split("."):
            part = part[step]
        assert part == value, name


@pytest.mark.parametrize(("expected", "name", "shapes", "fields"), FILES)
def test_files(make, expected, name, shapes, fields):
    check(make.header(f"{name}.safetensors", shapes), expected, fields)


@pytest.mark.parametrize(("expected", "shapes", "fields"), GGUFS)
def test_gguf_files(make, expected, shapes, fields):
    check(make.gguf("a.gguf", shapes, **{"general.name": "x"}), expected, fields)


@pytest.mark.parametrize(("expected", "files", "fields"), FOLDERS)
def test_folders(make, expected, files, fields):
    make.header("a/model.safetensors", {"x": (1,)})
    for name, content in files.items():
        make.json(f"a/{name}", {"_class_name": content} if isinstance(content, str) else content)
    check(make.folder / "a", expected, fields)


@pytest.mark.parametrize(("expected", "shapes"), LORA_FOLDERS)
def test_folders_of_loras(make, expected, shapes):
    make.header("a/pytorch_lora_weights.safetensors", shapes)
    check(make.folder / "a", expected, {"default_settings.weight": None})


@pytest.mark.parametrize(
    ("expected", "architecture"),
    [("LoRA_OMI_SDXL_Config", "stable-diffusion-xl-v1-base/lora"), ("LoRA_OMI_FLUX_Config", "Flux.1-dev/lora")],
)
def test_omi_loras_declare_their_architecture(make, expected, architecture):
    path = make.header("a.safetensors", kohya("x"), **OMI, **{"modelspec.architecture": architecture})
    check(path, expected, {})


@pytest.mark.parametrize(("base", "width"), [("SD1", 768), ("SD2", 1024), ("SDXL", 1280)])
def test_folders_of_embeddings(make, base, width):
    make.pickle("a/learned_embeds.bin", {"<cat>": (width,)})
    check(make.folder / "a", f"TI_Folder_{base}_Config", {})


@pytest.mark.parametrize(("base", "width"), [("SD1", 768), ("SD2", 1024), ("SDXL", 2048)])
def test_ip_adapter_folders_name_their_image_encoder(make, base, width):
    make.pickle("a/ip_adapter.bin", {"ip_adapter": {"1.to_k_ip.weight": (9, width)}, "image_proj": {"x": (1,)}})
    (make.folder / "a/image_encoder.txt").write_text("InvokeAI/encoder\n")
    check(make.folder / "a", f"IPAdapter_InvokeAI_{base}_Config", {"image_encoder_model_id": "InvokeAI/encoder"})


def test_pickles_are_read_without_being_run(make):
    vectors = {"string_to_token": {"*": 265}, "string_to_param": {"*": (2, 768)}, "name": "cat"}
    check(make.pickle("a.pt", vectors, zipped=False), "TI_File_SD1_Config", {})
    esrgan = {"conv_first.weight": (64, 3, 3, 3), "body.0.rdb1.conv1.weight": (32, 64, 3, 3)}
    check(make.pickle("b.pth", {"params_ema": esrgan}), "Spandrel_Checkpoint_Config", {})
    second = {"global_step": 220000, "state_dict": unet(width=1024)}
    check(make.pickle("c.ckpt", second), "Main_Checkpoint_SD2_Config", {"prediction_type": "epsilon"})


def test_every_config_class_is_covered():
    tried = {row[0] for row in (*FILES, *GGUFS, *FOLDERS, *LORA_FOLDERS)} | OTHERS
    assert {config.__name__ for config in registry.config_classes()} == tried


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("wan2.2_vace", WAN),
        ("wan21_t2v", WAN),
        ("a", WAN | {"img_emb.proj.0.weight": (9, 9)}),
        ("a", WAN | {"patch_embedding.weight": (1536, 16, 1, 2, 2)}),
        ("a", {"patch_embedding.weight": (5120, 16, 1, 2, 2)}),
        ("a", QWEN_IMAGE | {"context_embedder.weight": (9, 9)}),
        ("a", QWEN3 | {"model.embed_tokens.weight": (10, 777)}),
        ("a", MISTRAL | {"model.layers.50.x": (1,)}),
        ("a", {"model.diffusion_model.something.weight": (9, 9)}),
        ("a", {"ip_adapter.1.to_k_ip.weight": (320, 100)}),
    ],
)
def test_unsupported_related_models_are_refused(make, name, shapes):
    with pytest.raises(InvalidModel, match="not a model of a known kind"):
        identify(ModelFiles(make.header(f"{name}.safetensors", shapes)), FACTS, {}, allow_unknown=False)


def test_a_text_encoder_of_a_whole_pipeline_is_not_taken_for_the_model(make):
    make.json("a/model_index.json", {"_class_name": "OtherPipeline"})
    make.json("a/text_encoder/config.json", {"architectures": ["Qwen3Model"], "hidden_size": 2560})
    make.json("a/text_encoder_2/config.json", {"architectures": ["T5EncoderModel"]})
    make.json("a/text_encoder_2/model.safetensors.index.json", {"weight_map": {}})
    make.header("a/model.safetensors", {"x": (1,)})
    with pytest.raises(InvalidModel, match="not a model of a known kind"):
        identify(ModelFiles(make.folder / "a"), FACTS, {}, allow_unknown=False)
