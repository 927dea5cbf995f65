"""Inputs shared by denoise nodes of flow-matching transformers."""

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, field_validator

from invokeclone.components.denoisers.fields import TransformerField
from invokeclone.graph.context import InvocationContext
from invokeclone.graph.vocabulary.fields import DenoiseMaskField, FieldDescriptions, Input, InputField, LatentsField

if TYPE_CHECKING:
    from invokeclone.engine.flow_inputs import FlowInputs


class FlowDenoiseInputs(BaseModel):
    """Mixin with the first inputs of a denoise node.

    The node adds `cfg_scale`, `width`, `height`, `steps` and `seed`, which `flow_inputs` also reads.
    """

    latents: LatentsField | None = InputField(
        default=None, description=FieldDescriptions.latents, input=Input.Connection
    )
    noise: LatentsField | None = InputField(default=None, description=FieldDescriptions.noise, input=Input.Connection)
    denoise_mask: DenoiseMaskField | None = InputField(
        default=None, description=FieldDescriptions.denoise_mask, input=Input.Connection
    )
    denoising_start: float = InputField(default=0.0, ge=0, le=1, description=FieldDescriptions.denoising_start)
    denoising_end: float = InputField(default=1.0, ge=0, le=1, description=FieldDescriptions.denoising_end)
    transformer: TransformerField = InputField(
        description=FieldDescriptions.transformer, input=Input.Connection, title="Transformer"
    )

    @field_validator("cfg_scale", check_fields=False)
    @classmethod
    def _not_empty(cls, scale: float | list[float]) -> float | list[float]:
        if scale == []:
            raise ValueError("cfg_scale must be one number, or a list with one number per step")
        return scale


def flow_inputs(
    node: Any, context: InvocationContext, steps: int | None = None, cfg_scale: float | None = None
) -> "FlowInputs":
    """Return the settings and tensors of a denoise node's inputs.

    `steps` and `cfg_scale` are given if the node's inputs have other names. Nodes without the input `add_noise` add noise.
    """
    from invokeclone.engine.flow_inputs import FlowInputs

    settings = context.config.get()
    return FlowInputs(
        node.width,
        node.height,
        node.steps if steps is None else steps,
        node.seed,
        node.denoising_start,
        node.denoising_end,
        node.cfg_scale if cfg_scale is None else cfg_scale,
        latents=context.tensors.load(node.latents.latents_name) if node.latents else None,
        noise=context.tensors.load(node.noise.latents_name) if node.noise else None,
        guidance_end=settings.guidance_end,
        sequential=settings.sequential_guidance,
        keep_mask=context.tensors.load(node.denoise_mask.mask_name) if node.denoise_mask else None,
        add_noise=getattr(node, "add_noise", True),
    )
