"""FLUX.1's graph building blocks, with the same nodes as InvokeAI's web UI."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from invokeclone.components.flux.references import add_references
from invokeclone.graph.builder import GraphBuilder, NodeOutput
from invokeclone.graph.recipes import (
    AppliedLoRA,
    CannotBuild,
    ControlKind,
    DenoiseRun,
    LoRANode,
    Model,
    ModelParts,
    PartKind,
    ReferenceImage,
    StyleImage,
    StyleModelKind,
    recipe,
)
from invokeclone.graph.recipes.flow import FlowRecipe
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ClipVariantType, FluxVariantType, ModelType

_TOKENS = "t5_max_seq_len"
"""Input of the prompt node; it comes from the model loader, as the text encoders do."""
_ENCODERS = ("clip", "t5_encoder")
_LORA_NODE = LoRANode("flux_lora_collection_loader", "transformer", _ENCODERS)


@recipe(BaseModelType.Flux)
class FluxRecipe(FlowRecipe):
    """Recipe of FLUX.1. Its guidance is an input of the network, so that negative prompts are for a cfg_scale only."""

    name = "flux"
    metadata_mode = "flux_"
    decode_node = "vae_decode"
    encode_node = "vae_encode"
    guidance_name = "guidance"
    has_negative_prompt = False
    text_encoders = _ENCODERS
    separate_parts: Mapping[str, PartKind] = {
        "clip_embed_model": PartKind(ModelType.CLIPEmbed, ClipVariantType.L),
        "t5_encoder_model": PartKind(ModelType.T5Encoder),
        "vae_model": PartKind(ModelType.VAE),
    }
    schedule_shift: Mapping[str, float] = {"max_shift": 1.15, "base_shift": 0.5}
    control_kinds: Mapping[ControlKind, int] = {
        "canny": 0,
        "tile": 1,
        "depth": 2,
        "blur": 3,
        "pose": 4,
        "gray": 5,
        "low_quality": 6,
    }
    style_model = StyleModelKind(ModelType.FluxRedux, ModelType.SigLIP)

    def load_model(self, builder: GraphBuilder, model: Model, parts: Mapping[str, Model] | None = None) -> ModelParts:
        """Load transformer, text encoders and VAE."""
        loaded = super().load_model(builder, model, parts)
        tokens = NodeOutput(loaded.vae.node_id, "max_seq_len")
        return replace(loaded, text_encoders={**loaded.text_encoders, _TOKENS: tokens})

    def apply_loras(
        self, builder: GraphBuilder, name: str, parts: ModelParts, loras: Sequence[AppliedLoRA]
    ) -> ModelParts:
        """Apply LoRAs to transformer and text encoders."""
        return _LORA_NODE.apply(builder, name, parts, loras)

    def encode_prompt(
        self,
        builder: GraphBuilder,
        name: str,
        parts: ModelParts,
        text: str | NodeOutput,
        region: NodeOutput | None = None,
    ) -> NodeOutput:
        """Encode with CLIP and T5."""
        encoders = dict(parts.text_encoders)
        return builder.output(name, "flux_text_encoder", "conditioning", prompt=text, mask=region, **encoders)

    def combine_prompts(self, builder: GraphBuilder, name: str, prompts: Sequence[NodeOutput]) -> NodeOutput:
        """Combine the prompts of regions."""
        return prompts[0] if len(prompts) == 1 else builder.collect(name, prompts)

    def denoise(self, builder: GraphBuilder, name: str, parts: ModelParts, run: DenoiseRun) -> NodeOutput:
        """Denoise noise from the seed, or latents with that noise."""
        return self._denoise(builder, name, parts, run)

    def _denoise(
        self, builder: GraphBuilder, name: str, parts: ModelParts, run: DenoiseRun, fill: NodeOutput | None = None
    ) -> NodeOutput:
        """Denoise; `fill` is the image and the mask of a Fill model."""
        guided = run.negative is not None and run.cfg_scale > 1.0
        control = self._controls(builder, name, run)
        control_lora = self._control_lora(builder, name, run)
        images = [image for image in run.references if image.model is None]
        references = add_references(builder, name, self.name, images)
        styles = self._styles(builder, name, run.styles)
        reads_images = any(image is not None for image in (control, control_lora, references, fill))
        return builder.output(
            name,
            "flux_denoise",
            "latents",
            transformer=parts.denoiser,
            positive_text_conditioning=run.positive,
            negative_text_conditioning=run.negative if guided else None,
            cfg_scale=run.cfg_scale if guided else 1.0,
            control=control,
            control_lora=control_lora,
            ip_adapter=self._ip_adapters(builder, name, run.references),
            kontext_conditioning=references,
            redux_conditioning=styles,
            fill_conditioning=fill,
            controlnet_vae=parts.vae if reads_images else None,
            latents=run.latents,
            denoise_mask=run.mask,
            denoising_start=run.start,
            denoising_end=run.end,
            add_noise=run.add_noise,
            num_steps=run.steps,
            guidance=run.guidance,
            scheduler=run.scheduler,
            seed=run.seed,
            width=run.width,
            height=run.height,
        )

    def _controls(self, builder: GraphBuilder, name: str, run: DenoiseRun) -> NodeOutput | None:
        """Return the run's ControlNets as a list, None if there are none."""
        outputs = []
        controls = [control for control in run.controls if control.model["type"] != ModelType.ControlLoRa]
        for number, control in enumerate(controls):
            if control.model["type"] != ModelType.ControlNet:
                raise CannotBuild(f"{self.name}: {control.model['name']} is not a ControlNet")
            fields = {key: value for key, value in control.fields().items() if key != "control_mode"}
            if control.kind is not None:
                fields["instantx_control_mode"] = self.control_kinds[control.kind]
            outputs.append(builder.output(f"{name}_controlnet_{number}", "flux_controlnet", "control", **fields))
        return builder.collect(f"{name}_controlnet_collect", outputs) if outputs else None

    def _control_lora(self, builder: GraphBuilder, name: str, run: DenoiseRun) -> NodeOutput | None:
        """Return the run's control LoRA, of which the denoise node takes one."""
        controls = [control for control in run.controls if control.model["type"] == ModelType.ControlLoRa]
        if not controls:
            return None
        if len(controls) > 1:
            raise CannotBuild(f"{self.name}: only one control LoRA at a time is supported")
        control = controls[0]
        if (control.begin, control.end, control.kind) != (0.0, 1.0, None):
            raise CannotBuild(f"{control.model['name']} is a control LoRA: it has no range of steps and no kind")
        image = {"image_name": control.image} if isinstance(control.image, str) else control.image
        lora = {"lora": dict(control.model), "image": image, "weight": control.weight}
        return builder.output(f"{name}_control_lora", "flux_control_lora_loader", "control_lora", **lora)

    def _ip_adapters(self, builder: GraphBuilder, name: str, references: Sequence[ReferenceImage]) -> NodeOutput | None:
        """Return the images of IP-Adapters as a list, None if there are none."""
        outputs = []
        for number, reference in enumerate(image for image in references if image.model is not None):
            if reference.method != "full" or reference.mask is not None:
                raise CannotBuild(f"{self.name}: IP-Adapters have no method and no mask, remove them")
            fields = {key: value for key, value in reference.fields().items() if key != "method"}
            outputs.append(builder.output(f"{name}_ip_adapter_{number}", "flux_ip_adapter", "ip_adapter", **fields))
        return builder.collect(f"{name}_ip_adapter_collect", outputs) if outputs else None

    def _styles(self, builder: GraphBuilder, name: str, styles: Sequence[StyleImage]) -> NodeOutput | None:
        """Return the images of Redux models as a list, None if there are none."""
        outputs = []
        for number, style in enumerate(styles):
            image = {"image_name": style.image} if isinstance(style.image, str) else style.image
            outputs.append(
                builder.output(
                    f"{name}_redux_{number}",
                    "flux_redux",
                    "redux_cond",
                    image=image,
                    mask=style.region,
                    redux_model=dict(style.model),
                    weight=round(style.strength**0.5, 6),  # the node squares it
                )
            )
        return builder.collect(f"{name}_redux_collect", outputs) if outputs else None


@recipe(BaseModelType.Flux, variant=FluxVariantType.DevFill)
class FluxFillRecipe(FluxRecipe):
    """Recipe of FLUX.1 Fill, which reads the image and the mask of the part to repaint."""

    reads_masked_image = True

    def denoise_mask(
        self,
        builder: GraphBuilder,
        name: str,
        mask: Mapping[str, str] | NodeOutput,
        image: Mapping[str, str] | NodeOutput | None,
        vae: NodeOutput,  # noqa: ARG002  (the denoise node encodes the image)
    ) -> NodeOutput:
        """Select the image and the part to repaint."""
        if image is None:
            raise CannotBuild(f"{self.name}: Fill models need the image that the mask belongs to")
        tensor = builder.output(f"{name}_tensor", "image_mask_to_tensor", "mask", image=mask, invert=True)
        return builder.output(name, "flux_fill", "fill_cond", image=image, mask=tensor)

    def denoise(self, builder: GraphBuilder, name: str, parts: ModelParts, run: DenoiseRun) -> NodeOutput:
        """Repaint the part; its latents only matter for runs that skip the beginning of the schedule."""
        if run.mask is None:
            raise CannotBuild(f"{self.name}: Fill models need an image and a mask of the part to repaint")
        latents = run.latents if run.start > 0.0 else None
        return self._denoise(builder, name, parts, replace(run, mask=None, latents=latents), run.mask)
