"""Model and prompt nodes of Stable Diffusion XL and its refiner."""

from typing import TYPE_CHECKING

from invokeclone.components.autoencoders.fields import VAEField
from invokeclone.components.clip.fields import CLIPField
from invokeclone.families.stable_diffusion.fields import (
    SDXLModelLoaderOutput,
    SDXLRefinerModelLoaderOutput,
    clip_of,
    unet_of,
)
from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, invocation
from invokeclone.graph.invocations.metadata import check_exists, check_type
from invokeclone.graph.invocations.outputs import ConditioningOutput
from invokeclone.graph.vocabulary.fields import (
    ConditioningField,
    FieldDescriptions,
    Input,
    InputField,
    TensorField,
    UIComponent,
)
from invokeclone.graph.vocabulary.model_fields import ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelType, SubModelType

if TYPE_CHECKING:
    from invokeclone.families.stable_diffusion.conditioning import SDXLConditioningInfo
    from invokeclone.families.stable_diffusion.prompts import EncodedText

_TAGS = ["sdxl", "compel", "prompt"]


@invocation("sdxl_model_loader", title="Main Model - SDXL", tags=["model", "sdxl"], category="model", version="1.0.4")
class SDXLModelLoaderInvocation(BaseInvocation):
    """Split an SDXL model into UNet, two text encoders and VAE."""

    model: ModelIdentifierField = InputField(
        description=FieldDescriptions.sdxl_main_model,
        ui_model_base=BaseModelType.StableDiffusionXL,
        ui_model_type=ModelType.Main,
    )

    def invoke(self, context: InvocationContext) -> SDXLModelLoaderOutput:
        """Return references to the parts."""
        check_exists(context, self.model)
        check_type(context, self.model, ModelType.Main)
        return SDXLModelLoaderOutput(
            unet=unet_of(self.model),
            clip=clip_of(self.model, SubModelType.Tokenizer, SubModelType.TextEncoder),
            clip2=clip_of(self.model, SubModelType.Tokenizer2, SubModelType.TextEncoder2),
            vae=VAEField(vae=self.model.part(SubModelType.VAE)),
        )


@invocation(
    "sdxl_refiner_model_loader",
    title="Refiner Model - SDXL",
    tags=["model", "sdxl", "refiner"],
    category="model",
    version="1.0.4",
)
class SDXLRefinerModelLoaderInvocation(BaseInvocation):
    """Split an SDXL refiner into UNet, text encoder and VAE."""

    model: ModelIdentifierField = InputField(
        description=FieldDescriptions.sdxl_refiner_model,
        ui_model_base=BaseModelType.StableDiffusionXLRefiner,
        ui_model_type=ModelType.Main,
    )

    def invoke(self, context: InvocationContext) -> SDXLRefinerModelLoaderOutput:
        """Return references to the parts."""
        check_exists(context, self.model)
        check_type(context, self.model, ModelType.Main)
        return SDXLRefinerModelLoaderOutput(
            unet=unet_of(self.model),
            clip2=clip_of(self.model, SubModelType.Tokenizer2, SubModelType.TextEncoder2),
            vae=VAEField(vae=self.model.part(SubModelType.VAE)),
        )


@invocation("sdxl_compel_prompt", title="Prompt - SDXL", tags=_TAGS, category="prompt", version="1.2.1")
class SDXLCompelPromptInvocation(BaseInvocation):
    """Encode a prompt and a style, with compel's weights and operators, to conditioning."""

    prompt: str = InputField(default="", description="The prompt, in compel syntax", ui_component=UIComponent.Textarea)
    style: str = InputField(
        default="",
        description="The prompt of the second text encoder; if blank, the main prompt",
        ui_component=UIComponent.Textarea,
    )
    original_width: int = InputField(default=1024, description="Original image width that the model is conditioned on")
    original_height: int = InputField(
        default=1024, description="Original image height that the model is conditioned on"
    )
    crop_top: int = InputField(default=0, description="Crop at the top of the original image, in pixels")
    crop_left: int = InputField(default=0, description="Crop at the left of the original image, in pixels")
    target_width: int = InputField(
        default=1024, description="Width of the cropped image that the model is conditioned on"
    )
    target_height: int = InputField(
        default=1024, description="Height of the cropped image that the model is conditioned on"
    )
    clip: CLIPField = InputField(description=FieldDescriptions.clip, input=Input.Connection, title="CLIP 1")
    clip2: CLIPField = InputField(description=FieldDescriptions.clip, input=Input.Connection, title="CLIP 2")
    mask: TensorField | None = InputField(
        default=None, description="Mask of the region that the prompt applies to; default: the whole image"
    )

    def invoke(self, context: InvocationContext) -> ConditioningOutput:
        """Encode the prompts."""
        from invokeclone.families.stable_diffusion import prompts

        style = self.style if self.style.strip() else self.prompt
        texts = [
            _encode(context, self.clip, self.prompt, "clip"),
            _encode(context, self.clip2, style, "clip2"),
        ]
        numbers = (
            *(self.original_height, self.original_width),
            *(self.crop_top, self.crop_left),
            *(self.target_height, self.target_width),
        )
        return _save_conditioning(context, prompts.conditioning(texts, numbers), self.mask)


@invocation("sdxl_refiner_compel_prompt", title="Prompt - SDXL Refiner", tags=_TAGS, category="prompt", version="1.1.2")
class SDXLRefinerCompelPromptInvocation(BaseInvocation):
    """Encode a prompt, with compel's weights and operators, to conditioning for the refiner."""

    style: str = InputField(default="", description="The prompt, in compel syntax", ui_component=UIComponent.Textarea)
    original_width: int = InputField(default=1024, description="Original image width that the model is conditioned on")
    original_height: int = InputField(
        default=1024, description="Original image height that the model is conditioned on"
    )
    crop_top: int = InputField(default=0, description="Crop at the top of the original image, in pixels")
    crop_left: int = InputField(default=0, description="Crop at the left of the original image, in pixels")
    aesthetic_score: float = InputField(
        default=6.0, description="Aesthetic score that the model is conditioned on, about 1 to 10"
    )
    clip2: CLIPField = InputField(description=FieldDescriptions.clip, input=Input.Connection)

    def invoke(self, context: InvocationContext) -> ConditioningOutput:
        """Encode the prompt."""
        from invokeclone.families.stable_diffusion import prompts

        text = _encode(context, self.clip2, self.style, None)
        numbers = (self.original_height, self.original_width, self.crop_top, self.crop_left, self.aesthetic_score)
        return _save_conditioning(context, prompts.conditioning([text], numbers), None)


def _encode(context: InvocationContext, clip: CLIPField, text: str, part: str | None) -> "EncodedText":
    """Encode a text with one encoder.

    `part` None is the refiner's, which has no LoRAs and does not zero empty prompts.
    """
    from invokeclone.components.clip.encode import tokenization
    from invokeclone.components.denoisers.loras import patch_loras
    from invokeclone.engine.loaded import device_of
    from invokeclone.families.stable_diffusion import prompts
    from invokeclone.families.stable_diffusion.textual_inversions import with_embeddings

    text_encoder_info, tokenizer_info = context.models.load(clip.text_encoder), context.models.load(clip.tokenizer)
    pooled = part != "clip"
    with text_encoder_info as text_encoder, tokenizer_info as tokenizer:
        if part is not None and not text:
            return prompts.empty_text(text_encoder, pooled=pooled)
        if context.config.get().log_tokenization:
            context.logger.info(tokenization(tokenizer, text))
        context.util.signal_progress("Building conditioning")
        device = device_of(text_encoder_info, text_encoder)
        base = text_encoder_info.config.base
        with (
            patch_loras(context, clip.loras if part else [], text_encoder, part or "clip2"),
            with_embeddings(context, text, tokenizer, text_encoder, base) as extended,
        ):
            return prompts.encode_text(extended, text_encoder, text, device, clip.skipped_layers, pooled=pooled)


def _save_conditioning(
    context: InvocationContext, info: "SDXLConditioningInfo", mask: TensorField | None
) -> ConditioningOutput:
    from invokeclone.engine.conditioning import ConditioningFieldData

    name = context.conditioning.save(ConditioningFieldData(conditionings=[info]))
    return ConditioningOutput(conditioning=ConditioningField(conditioning_name=name, mask=mask))
