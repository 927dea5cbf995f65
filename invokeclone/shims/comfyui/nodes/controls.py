"""ControlNets and T2I-Adapters, which are attached to prompts."""

from dataclasses import replace

from invokeclone.graph.recipes import AppliedControl, ControlKind
from invokeclone.models.configs.model_config import ModelConfig
from invokeclone.queue.generation import InvalidGeneration, check_control_kind, identifier
from invokeclone.shims.comfyui.node_types import BuildContext, choice, link, list_choice, node, number
from invokeclone.shims.comfyui.values import ControlNetValue, EncodedPrompts, ImageBatch, Mask, Model, Vae

CONTROL = {"control_net": link("CONTROL_NET"), "image": link("IMAGE"), "strength": number(1.0, 0.0, 10.0)}
MIN_STRENGTH, MAX_STRENGTH = 0.0, 2.0
PROMPTS = {"positive": link("CONDITIONING"), "negative": link("CONDITIONING")}
RANGE = {"start_percent": number(0.0, 0.0, 1.0, step=0.001), "end_percent": number(1.0, 0.0, 1.0, step=0.001)}
KINDS: dict[str, ControlKind | None] = {
    "auto": None,
    "openpose": "pose",
    "depth": "depth",
    "hed/pidi/scribble/ted": "soft_edge",
    "canny/lineart/anime_lineart/mlsd": "canny",
    "normal": "normal",
    "segment": "segmentation",
    "tile": "tile",
    "repaint": "inpaint",
}
"""ComfyUI's types of control images; each means the mode of that name, whatever its number in a union ControlNet."""


@node(
    "ControlNetLoader",
    "Load ControlNet Model",
    "loaders",
    {"control_net_name": list_choice("controlnet")},
    "CONTROL_NET",
)
def load_controlnet(context: BuildContext, *, control_net_name: str) -> tuple[ControlNetValue]:
    """Load a ControlNet or a T2I-Adapter."""
    return (ControlNetValue(context.find("controlnet", control_net_name)),)


@node(
    "DiffControlNetLoader",
    "Load ControlNet Model (diff)",
    "loaders",
    {"model": link("MODEL"), "control_net_name": list_choice("controlnet")},
    "CONTROL_NET",
)
def load_controlnet_of_model(
    context: BuildContext,
    *,
    model: Model,  # noqa: ARG001  (ControlNets are complete)
    control_net_name: str,
) -> tuple[ControlNetValue]:
    """Load a ControlNet or a T2I-Adapter."""
    return load_controlnet(context, control_net_name=control_net_name)  # type: ignore[no-any-return]


@node(
    "SetUnionControlNetType",
    "SetUnionControlNetType",
    "conditioning/controlnet",
    {"control_net": link("CONTROL_NET"), "type": choice(*KINDS)},
    "CONTROL_NET",
)
def set_kind(_context: BuildContext, *, control_net: ControlNetValue, type: str) -> tuple[ControlNetValue]:  # noqa: A002  (ComfyUI's name)
    """Set what the control image of a union ControlNet shows."""
    return (replace(control_net, kind=KINDS[type]),)


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
    {**PROMPTS, **CONTROL, **RANGE, "vae": link("VAE", optional=True)},
    ("CONDITIONING", "positive"),
    ("CONDITIONING", "negative"),
)
@node(
    "ControlNetApplySD3",
    "Apply Controlnet with VAE",
    "conditioning/controlnet",
    {**PROMPTS, **CONTROL, **RANGE, "vae": link("VAE")},
    ("CONDITIONING", "positive"),
    ("CONDITIONING", "negative"),
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
    vae: Vae | None = None,  # noqa: ARG001  (the sampled model's is used)
) -> tuple[EncodedPrompts, EncodedPrompts]:
    """Apply a control image to a positive and a negative prompt, for a range of steps."""
    if start_percent >= end_percent:
        return positive, negative
    controlled = _add_control(context, positive, control_net, image, strength, start_percent, end_percent)
    return controlled, replace(negative, controls=controlled.controls)


# ControlNets that are attached to models


@node(
    "ModelPatchLoader",
    "Load Model Patch",
    "advanced/loaders",
    {"name": list_choice("controlnet")},
    "MODEL_PATCH",
)
def load_model_patch(context: BuildContext, *, name: str) -> tuple[ControlNetValue]:
    """Load a ControlNet."""
    return (ControlNetValue(context.find("controlnet", name)),)


PATCH = {"model": link("MODEL"), "model_patch": link("MODEL_PATCH"), "vae": link("VAE")}
PATCH_STRENGTH = number(1.0, -10.0, 10.0)
OPTIONAL_MASK = link("MASK", optional=True)


@node(
    "QwenImageDiffsynthControlnet",
    "QwenImageDiffsynthControlnet",
    "advanced/loaders/qwen",
    {**PATCH, "image": link("IMAGE"), "strength": PATCH_STRENGTH, "mask": OPTIONAL_MASK},
    "MODEL",
)
@node(
    "ZImageFunControlnet",
    "ZImageFunControlnet",
    "advanced/loaders/zimage",
    {
        **PATCH,
        "strength": PATCH_STRENGTH,
        "image": link("IMAGE", optional=True),
        "inpaint_image": link("IMAGE", optional=True),
        "mask": OPTIONAL_MASK,
    },
    "MODEL",
)
def apply_to_model(
    context: BuildContext,
    *,
    model: Model,
    model_patch: ControlNetValue,
    vae: Vae,  # noqa: ARG001  (the sampled model's is used)
    strength: float,
    image: ImageBatch | None = None,
    inpaint_image: ImageBatch | None = None,
    mask: Mask | None = None,
) -> tuple[Model]:
    """Apply a control image to a model."""
    if mask is not None or inpaint_image is not None:
        context.refuse("ControlNets that inpaint are not supported: disconnect mask and inpaint_image")
    if image is None or not strength:
        return (model,)
    control = _make_control(context, model.config, model_patch, image, strength)
    return (replace(model, controls=(*model.controls, control)),)


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
    mains = [text.clip.model.config for text in conditioning.texts]
    controls = [_make_control(context, main, control_net, image, strength, begin, end) for main in mains]
    return replace(conditioning, controls=(*conditioning.controls, *controls[:1]))


def _make_control(
    context: BuildContext,
    main: ModelConfig,
    control_net: ControlNetValue,
    image: ImageBatch,
    strength: float,
    begin: float = 0.0,
    end: float = 1.0,
) -> AppliedControl:
    """Return a control for a main model; refuses what the model and the ControlNet do not support."""
    if not MIN_STRENGTH <= strength <= MAX_STRENGTH:
        context.refuse(
            f"a ControlNet's strength is at least {MIN_STRENGTH:g} and at most {MAX_STRENGTH:g}, not {strength:g}"
        )
    config = control_net.config
    context.require(main, "control")
    if main.base != config.base:
        context.refuse(f"{config.name} is for {config.base} models, {main.name} is {main.base}")
    try:
        check_control_kind(main, control_net.kind)
    except InvalidGeneration as error:
        context.refuse(str(error))
    return AppliedControl(identifier(config), image.nodes[0], strength, begin, end, kind=control_net.kind)
