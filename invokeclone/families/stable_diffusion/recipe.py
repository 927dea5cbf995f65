"""Stable Diffusion's graph building blocks, with the same nodes as InvokeAI's web UI."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from invokeclone.families.stable_diffusion import prompt_language
from invokeclone.graph.builder import GraphBuilder, NodeOutput
from invokeclone.graph.prompts import Prompt
from invokeclone.graph.recipes import (
    AppliedLoRA,
    CannotBuild,
    DenoiseRun,
    LoRANode,
    Model,
    ModelParts,
    PromptDetails,
    Recipe,
    ReferenceImage,
    recipe,
)
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelType

Image = Mapping[str, str] | NodeOutput
_CONTROL_NODES = {ModelType.ControlNet: ("controlnet", "control"), ModelType.T2IAdapter: ("t2i_adapter", "t2i_adapter")}
"""Node type and output of each kind of control model."""


@recipe(BaseModelType.StableDiffusion1, BaseModelType.StableDiffusion2)
class StableDiffusionRecipe(Recipe):
    """Recipe of Stable Diffusion 1 and 2."""

    name = "sd1"
    weights_prompts = True
    has_control_modes = True
    metadata_mode = ""
    lora_node = LoRANode("lora_collection_loader", "unet", ("clip",))

    def load_model(self, builder: GraphBuilder, model: Model, parts: Mapping[str, Model] | None = None) -> ModelParts:  # noqa: ARG002  (no separate parts)
        """Load UNet, CLIP and VAE."""
        loader = builder.node("sd1_model_loader", "main_model_loader", model=dict(model))
        unet, clip, vae = (NodeOutput(loader, name) for name in ("unet", "clip", "vae"))
        return ModelParts(unet, {"clip": clip}, vae)

    def skip_clip_layers(self, builder: GraphBuilder, parts: ModelParts, count: int) -> ModelParts:
        """Skip layers. The node is added even for 0, so that other clients find it."""
        clip = parts.text_encoders["clip"]
        return replace(
            parts,
            text_encoders={"clip": builder.output("clip_skip", "clip_skip", "clip", clip=clip, skipped_layers=count)},
        )

    def apply_loras(
        self, builder: GraphBuilder, name: str, parts: ModelParts, loras: Sequence[AppliedLoRA]
    ) -> ModelParts:
        """Apply LoRAs to UNet and text encoders."""
        return self.lora_node.apply(builder, name, parts, loras)

    def make_seamless(self, builder: GraphBuilder, parts: ModelParts) -> ModelParts:
        """Make UNet and VAE seamless in both directions."""
        axes = {"seamless_x": True, "seamless_y": True}
        node = builder.node("seamless", "seamless", unet=parts.denoiser, vae=parts.vae, **axes)
        return replace(parts, denoiser=NodeOutput(node, "unet"), vae=NodeOutput(node, "vae"))

    def write_prompt(self, prompt: Prompt) -> str:
        """Write the prompt in compel's language."""
        return prompt_language.write(prompt)

    def encode_prompt(
        self,
        builder: GraphBuilder,
        name: str,
        parts: ModelParts,
        text: str | NodeOutput,
        region: NodeOutput | None = None,
    ) -> NodeOutput:
        """Encode with compel."""
        clip = parts.text_encoders["clip"]
        return builder.output(name, "compel", "conditioning", prompt=text, clip=clip, mask=region)

    def combine_prompts(self, builder: GraphBuilder, name: str, prompts: Sequence[NodeOutput]) -> NodeOutput:
        """Concatenate prompts."""
        return builder.collect(name, prompts)

    def denoise(self, builder: GraphBuilder, name: str, parts: ModelParts, run: DenoiseRun) -> NodeOutput:
        """Denoise noise from the seed, blended with the variation's noise."""
        return builder.output(
            name,
            "denoise_latents",
            "latents",
            unet=parts.denoiser,
            positive_conditioning=run.positive,
            negative_conditioning=run.negative,
            noise=self._noise(builder, f"{name}_noise", run) if run.add_noise else None,
            latents=run.latents,
            denoise_mask=run.mask,
            control=self._controls(builder, name, run, ModelType.ControlNet),
            t2i_adapter=self._controls(builder, name, run, ModelType.T2IAdapter),
            ip_adapter=self._references(builder, name, run.references),
            steps=run.steps,
            cfg_scale=run.guidance,
            cfg_rescale_multiplier=run.cfg_rescale,
            scheduler=run.scheduler,
            denoising_start=run.start,
            denoising_end=run.end,
        )

    def _controls(self, builder: GraphBuilder, name: str, run: DenoiseRun, kind: ModelType) -> NodeOutput | None:
        """Return the run's control models of one kind as a list, None if there are none."""
        node, field = _CONTROL_NODES[kind]
        controls = [control for control in run.controls if control.model["type"] == kind]
        outputs = [
            builder.output(f"{name}_{node}_{number}", node, field, **control.fields())
            for number, control in enumerate(controls)
        ]
        return builder.collect(f"{name}_{node}_collect", outputs) if outputs else None

    def _references(self, builder: GraphBuilder, name: str, references: Sequence[ReferenceImage]) -> NodeOutput | None:
        """Return the run's IP-Adapters as a list, None if there are none."""
        outputs = []
        for number, reference in enumerate(references):
            node_id = f"{name}_ip_adapter_{number}"
            mask = reference.mask
            if mask is not None:
                image = {"image_name": mask} if isinstance(mask, str) else mask
                mask = builder.output(f"{node_id}_mask", "image_mask_to_tensor", "mask", image=image)
            outputs.append(builder.output(node_id, "ip_adapter", "ip_adapter", mask=mask, **reference.fields()))
        return builder.collect(f"{name}_ip_adapter_collect", outputs) if outputs else None

    def _noise(self, builder: GraphBuilder, name: str, run: DenoiseRun) -> NodeOutput:
        size = {"width": run.width, "height": run.height}
        noise = builder.output(name, "noise", "noise", seed=run.seed, use_cpu=True, **size)
        if run.variation is None:
            return noise
        varied = builder.output(f"{name}_varied", "noise", "noise", seed=run.variation.seed, use_cpu=True, **size)
        strength = run.variation.strength
        return builder.output(f"{name}_blend", "lblend", "latents", latents_a=noise, latents_b=varied, alpha=strength)

    def decode(
        self, builder: GraphBuilder, name: str, latents: NodeOutput, vae: NodeOutput, tile: int | None = None
    ) -> NodeOutput:
        """Decode in float32."""
        tiles = {} if tile is None else {"tiled": True, "tile_size": tile}
        return builder.output(name, "l2i", "image", latents=latents, vae=vae, fp32=True, **tiles)

    def encode_image(self, builder: GraphBuilder, name: str, image: Image, vae: NodeOutput) -> NodeOutput:
        """Encode in float32."""
        return builder.output(name, "i2l", "latents", image=image, vae=vae, fp32=True)

    def denoise_mask(
        self, builder: GraphBuilder, name: str, mask: Image, image: Image | None, vae: NodeOutput
    ) -> NodeOutput:
        """Create the mask, and the masked image's latents for inpainting models."""
        return builder.output(name, "create_denoise_mask", "denoise_mask", mask=mask, image=image, vae=vae, fp32=True)


@recipe(BaseModelType.StableDiffusionXL)
class StableDiffusionXLRecipe(StableDiffusionRecipe):
    """Recipe of Stable Diffusion XL, whose two text encoders get the same prompt."""

    name = "sdxl"
    metadata_mode = "sdxl_"
    lora_node = LoRANode("sdxl_lora_collection_loader", "unet", ("clip", "clip2"))

    def load_model(self, builder: GraphBuilder, model: Model, parts: Mapping[str, Model] | None = None) -> ModelParts:  # noqa: ARG002  (no separate parts)
        """Load UNet, both text encoders and VAE."""
        loader = builder.node("sdxl_model_loader", "sdxl_model_loader", model=dict(model))
        unet, clip, clip2, vae = (NodeOutput(loader, name) for name in ("unet", "clip", "clip2", "vae"))
        return ModelParts(unet, {"clip": clip, "clip2": clip2}, vae)

    def skip_clip_layers(self, builder: GraphBuilder, parts: ModelParts, count: int) -> ModelParts:
        """Skip layers of both encoders."""
        if not count:
            return parts
        skipped = {
            name: builder.output(f"{name}_skip", "clip_skip", "clip", clip=encoder, skipped_layers=count)
            for name, encoder in parts.text_encoders.items()
        }
        return replace(parts, text_encoders=skipped)

    def encode_prompt(
        self,
        builder: GraphBuilder,
        name: str,
        parts: ModelParts,
        text: str | NodeOutput,
        region: NodeOutput | None = None,
    ) -> NodeOutput:
        """Encode with compel; sizes are those of the model's training, as in InvokeAI's web UI."""
        return self.encode_detailed_prompt(builder, name, parts, text, PromptDetails(), region)

    def encode_detailed_prompt(
        self,
        builder: GraphBuilder,
        name: str,
        parts: ModelParts,
        text: str | NodeOutput,
        details: PromptDetails,
        region: NodeOutput | None = None,
    ) -> NodeOutput:
        """Encode with compel, one text per encoder; aesthetic scores are only for the refiner."""
        if details.aesthetic_score is not None:
            raise CannotBuild(f"{self.name}: aesthetic scores are only for the refiner's prompts")
        style = text if details.second_text is None else details.second_text
        if isinstance(style, str) and isinstance(text, str) and text.strip() and not style.strip():
            raise CannotBuild(f"{self.name}: the second text encoder's prompt is empty, but the first one's is not")
        return builder.output(
            name,
            "sdxl_compel_prompt",
            "conditioning",
            prompt=text,
            style=style,
            mask=region,
            **_sides("original", details.original_size),
            **_sides("target", details.target_size),
            **_crop(details),
            **dict(parts.text_encoders),
        )


@recipe(BaseModelType.StableDiffusionXLRefiner)
class StableDiffusionXLRefinerRecipe(StableDiffusionXLRecipe):
    """Recipe of SDXL's refiner, which has only the second text encoder and is conditioned on an aesthetic score."""

    name = "sdxl_refiner"
    aesthetic_scores = (6.0, 2.5)

    def load_model(self, builder: GraphBuilder, model: Model, parts: Mapping[str, Model] | None = None) -> ModelParts:  # noqa: ARG002  (no separate parts)
        """Load UNet, text encoder and VAE."""
        loader = builder.node("sdxl_refiner_model_loader", "sdxl_refiner_model_loader", model=dict(model))
        unet, clip2, vae = (NodeOutput(loader, name) for name in ("unet", "clip2", "vae"))
        return ModelParts(unet, {"clip2": clip2}, vae)

    def encode_detailed_prompt(
        self,
        builder: GraphBuilder,
        name: str,
        parts: ModelParts,
        text: str | NodeOutput,
        details: PromptDetails,
        region: NodeOutput | None = None,
    ) -> NodeOutput:
        """Encode with compel."""
        if region is not None:
            raise CannotBuild(f"{self.name}: regional prompts are not supported")
        if details.second_text is not None or details.target_size is not None:
            raise CannotBuild(f"{self.name}: prompts must have one text and no target size")
        return builder.output(
            name,
            "sdxl_refiner_compel_prompt",
            "conditioning",
            style=text,
            aesthetic_score=details.aesthetic_score,
            **_sides("original", details.original_size),
            **_crop(details),
            **dict(parts.text_encoders),
        )


def _sides(name: str, size: tuple[int, int] | None) -> dict[str, int]:
    return {} if size is None else {f"{name}_width": size[0], f"{name}_height": size[1]}


def _crop(details: PromptDetails) -> dict[str, int]:
    left, top = details.crop
    return {"crop_left": left, "crop_top": top} if left or top else {}
