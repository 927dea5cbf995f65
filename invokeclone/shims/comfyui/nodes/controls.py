"""ControlNets and T2I-Adapters, which are attached to prompts."""

from dataclasses import replace

from invokeclone.graph.recipes import AppliedControl
from invokeclone.queue.generation import identifier
from invokeclone.shims.comfyui.node_types import BuildContext, link, list_choice, node, number
from invokeclone.shims.comfyui.values import ControlNetValue, EncodedPrompts, ImageBatch, Vae

CONTROL = {"control_net": link("CONTROL_NET"), "image": link("IMAGE"), "strength": number(1.0, 0.0, 10.0)}
MAX_STRENGTH = 2.0


@node(
    "ControlNetLoader",
    "Load ControlNet Model",
    "loaders",
    {"control_net_name": list_choice("controlnet")},
    "CONTROL_NET",
)
def load_controlnet(context: BuildContext, *, control_net_name: str) -> tuple[ControlNetValue]:
    """Load a ControlNet or a T2I-Adapter."""
    config = context.catalog.model("controlnet", control_net_name)
    return (ControlNetValue(config or context.refuse(f"unknown ControlNet {control_net_name!r}")),)


@node(
    "ControlNetApply",
    "Apply ControlNet (OLD)",
    "conditioning/controlnet",
    {"conditioning": link("CONDITIONING"), **CONTROL},
    "CONDITIONING",
)
def apply(
    context: BuildContext,
    *,
    conditioning: EncodedPrompts,
    control_net: ControlNetValue,
    image: ImageBatch,
    strength: float,
) -> tuple[EncodedPrompts]:
    """Apply a control image to a prompt."""
    return (_add_control(context, conditioning, control_net, image, strength),)


@node(
    "ControlNetApplyAdvanced",
    "Apply ControlNet",
    "conditioning/controlnet",
    {
        "positive": link("CONDITIONING"),
        "negative": link("CONDITIONING"),
        **CONTROL,
        "start_percent": number(0.0, 0.0, 1.0, step=0.001),
        "end_percent": number(1.0, 0.0, 1.0, step=0.001),
        "vae": replace(link("VAE"), optional=True),
    },
    "CONDITIONING",
    "CONDITIONING",
)
def apply_advanced(
    context: BuildContext,
    *,
    positive: EncodedPrompts,
    negative: EncodedPrompts,
    control_net: ControlNetValue,
    image: ImageBatch,
    strength: float,
    start_percent: float,
    end_percent: float,
    vae: Vae | None = None,  # noqa: ARG001  (only ControlNets of other families need it)
) -> tuple[EncodedPrompts, EncodedPrompts]:
    """Apply a control image to a positive and a negative prompt, for a range of steps."""
    if start_percent >= end_percent:
        return positive, negative
    controlled = _add_control(context, positive, control_net, image, strength, start_percent, end_percent)
    return controlled, replace(negative, controls=controlled.controls)


def _add_control(
    context: BuildContext,
    conditioning: EncodedPrompts,
    control_net: ControlNetValue,
    image: ImageBatch,
    strength: float,
    begin: float = 0.0,
    end: float = 1.0,
) -> EncodedPrompts:
    if not strength:
        return conditioning
    if strength > MAX_STRENGTH:
        context.refuse(f"a ControlNet's strength is at most {MAX_STRENGTH:g}, not {strength:g}")
    config = control_net.config
    for text in conditioning.texts:
        main = text.clip.model.config
        context.require(main, "control")
        if main.base != config.base:
            context.refuse(f"{config.name} is for {config.base} models, {main.name} is {main.base}")
    control = AppliedControl(identifier(config), image.nodes[0], strength, begin, end)
    return replace(conditioning, controls=(*conditioning.controls, control))
