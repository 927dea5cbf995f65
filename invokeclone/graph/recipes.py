"""From the settings of an image to a graph: the building blocks that each family provides, put together the same way for all.

A family's `recipe.py` has a subclass of Recipe for its bases: which nodes load a model, encode a prompt, denoise, decode.
`Recipe.build` makes a whole graph of them; ComfyUI's API uses the blocks one by one. What a family can do is stated in its
`spec.py` (Capabilities) and checked before a recipe is asked.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import Field

from invokeclone.graph import discovery
from invokeclone.graph.builder import GraphBuilder, NodeOutput
from invokeclone.graph.prompts import Prompt
from invokeclone.graph.scheduler_names import SCHEDULER_NAME_VALUES
from invokeclone.graph.taxonomy import BaseModelType, ModelType

SEED = "seed"
"""The id of the integer node that holds the seed; batches put other seeds there."""
VARIATION = "variation_seed"
"""The id of the integer node that holds the seed of the variation, where there is one."""
PROMPT = "positive_prompt"
"""The id of the string node that holds the prompt in the family's prompt language."""
OUTPUT = "canvas_output"
"""The id of the node whose image is the result."""
PASTED = "part"
"""The id of the node that makes the pasted image, where the result is a larger image."""

Fill = Literal["original", "noise"]
Share = Annotated[float, Field(ge=0, le=1)]
Pixels = Annotated[int, Field(gt=0)]
ControlMode = Literal["balanced", "more_prompt", "more_control", "unbalanced"]
ControlResize = Literal["just_resize", "crop_resize", "fill_resize", "just_resize_simple"]
Model = Mapping[str, Any]
"""key, hash, name, base and type of a model record."""


@dataclass(frozen=True)
class InitImage:
    """The image that a run begins with."""

    image: str
    """Its name among the images."""
    strength: Share = 0.75
    """Share of the noise that it gets: 1 leaves nothing of it."""
    resize: bool = False
    """Whether it must be brought to the size of the result first."""


@dataclass(frozen=True)
class InpaintMask:
    """Which part of the initial image changes."""

    mask: str
    """The name of a mask image of the initial image's size: white stays, black changes."""
    feather: Annotated[int, Field(ge=0, le=256)] = 0
    """Width of the border that fades from old to new, in pixels."""
    paste: bool = True
    """Whether the pixels that stay are put back exactly."""
    fill: Fill = "original"
    """What the changing part begins with."""


@dataclass(frozen=True)
class HiresFix:
    """A second run over the enlarged result of the first."""

    width: Pixels
    height: Pixels
    steps: Annotated[int, Field(ge=1, le=1000)]
    strength: Share = 0.7
    scheduler: SCHEDULER_NAME_VALUES | None = None
    """None: that of the first run."""
    in_pixels: bool = False
    """Whether pixels are enlarged, and not latents."""
    resample: Literal["lanczos", "nearest"] = "lanczos"
    """How pixels are enlarged."""


@dataclass(frozen=True)
class PasteTarget:
    """Where in a larger image the result is put; the larger image is the result then. Sizes in pixels."""

    image: str
    """The larger image's name among the images."""
    mask: str
    """The name of a mask of the pasted size: white keeps the larger image."""
    left: int
    top: int
    width: Pixels
    height: Pixels


@dataclass(frozen=True)
class Variation:
    """A second seed whose noise is blended in."""

    seed: int | NodeOutput
    strength: float
    """0..1."""


@dataclass(frozen=True)
class AppliedLoRA:
    """A LoRA and how strongly it is applied."""

    model: Model
    weight: float = 1.0
    """On the denoiser, and on the text encoders unless those have their own."""
    text_weight: float | None = None
    """On the text encoders; None: as on the denoiser."""


@dataclass(frozen=True)
class AppliedControl:
    """A control model (its type says which kind) and the image that it follows."""

    model: Model
    image: str | NodeOutput
    """Its name among the images, or where it comes out."""
    weight: float = 1.0
    begin: Share = 0.0
    """When it starts, as a fraction of the steps."""
    end: Share = 1.0
    mode: ControlMode = "balanced"
    """Whether the prompt or the image matters more; ControlNets only."""
    resize: ControlResize = "just_resize"
    """How the image is made to fit."""

    def fields(self) -> dict[str, Any]:
        """Return it by the names that its node's inputs and an image's metadata have."""
        own: dict[str, Any]
        if self.model["type"] == ModelType.T2IAdapter:
            own = {"t2i_adapter_model": dict(self.model), "weight": self.weight}
        else:
            own = {"control_model": dict(self.model), "control_weight": self.weight, "control_mode": self.mode}
        return {
            **own,
            "image": {"image_name": self.image} if isinstance(self.image, str) else self.image,
            "begin_step_percent": self.begin,
            "end_step_percent": self.end,
            "resize_mode": self.resize,
        }


@dataclass(frozen=True)
class ImageSettings:
    """Everything about an image before it is made; nothing is left open. Sizes in pixels."""

    model: Model
    prompt: Prompt
    seed: int
    width: int
    height: int
    steps: int
    guidance: float
    scheduler: str
    negative_prompt: Prompt = Prompt(native="")
    cfg_rescale: float = 0.0
    clip_skip: int = 0
    vae: Model | None = None
    seamless: bool = False
    loras: Sequence[AppliedLoRA] = ()
    controls: Sequence[AppliedControl] = ()
    init_image: InitImage | None = None
    inpaint_mask: InpaintMask | None = None
    hires_fix: HiresFix | None = None
    variation: Variation | None = None
    paste_target: PasteTarget | None = None
    board_id: str | None = None


class CannotBuild(ValueError):
    """A family has no way to make what is asked for; the text says what."""


@dataclass(frozen=True)
class ModelParts:
    """Where the parts of a loaded model come out in a graph."""

    denoiser: NodeOutput
    text_encoders: Mapping[str, NodeOutput]
    """By the names that the family's own nodes have for them."""
    vae: NodeOutput


@dataclass(frozen=True)
class DenoiseRun:
    """One denoise run. Sizes in pixels."""

    positive: NodeOutput
    negative: NodeOutput
    seed: int | NodeOutput
    width: int | NodeOutput
    height: int | NodeOutput
    steps: int
    guidance: float
    scheduler: str
    cfg_rescale: float = 0.0
    start: float = 0.0
    """Share of the schedule that is left out at the beginning."""
    end: float = 1.0
    latents: NodeOutput | None = None
    mask: NodeOutput | None = None
    add_noise: bool = True
    """Whether latents get noise; if not, they have theirs."""
    variation: Variation | None = None
    controls: Sequence[AppliedControl] = ()
    """Empty where the family's capabilities have no control."""


class Recipe(ABC):
    """A family's building blocks. Each adds nodes whose ids begin with `name` and returns where the result comes out.

    Blocks that not every family has raise CannotBuild unless a family overrides them.
    """

    name: str
    """Begins the ids of whole graphs."""
    metadata_mode: str | None = None
    """Begins the generation mode in an image's metadata, as `flux_` does; None: the mode is not recorded."""

    @abstractmethod
    def load_model(self, builder: GraphBuilder, model: Model) -> ModelParts:
        """Load the parts of a main model."""

    @abstractmethod
    def write_prompt(self, prompt: Prompt) -> str:
        """Return the prompt in the family's prompt language."""

    @abstractmethod
    def encode_prompt(
        self,
        builder: GraphBuilder,
        name: str,
        parts: ModelParts,
        text: str | NodeOutput,
        region: NodeOutput | None = None,
    ) -> NodeOutput:
        """Encode text in the family's prompt language, for the whole image or for a region (a mask tensor)."""

    @abstractmethod
    def denoise(self, builder: GraphBuilder, name: str, parts: ModelParts, run: DenoiseRun) -> NodeOutput:
        """Denoise; the node must have the outputs `latents`, `width` and `height`, the first of which is returned."""

    @abstractmethod
    def decode(
        self, builder: GraphBuilder, name: str, latents: NodeOutput, vae: NodeOutput, tile: int | None = None
    ) -> NodeOutput:
        """Decode latents into an image, in tiles of so many pixels where `tile` is given."""

    def encode_image(
        self, builder: GraphBuilder, name: str, image: Mapping[str, str] | NodeOutput, vae: NodeOutput
    ) -> NodeOutput:
        """Encode an image into latents."""
        raise CannotBuild(f"{self.name}: images to begin with are not supported")

    def denoise_mask(
        self,
        builder: GraphBuilder,
        name: str,
        mask: Mapping[str, str] | NodeOutput,
        image: Mapping[str, str] | NodeOutput | None,
        vae: NodeOutput,
    ) -> NodeOutput:
        """Make a mask of what stays (white) for `denoise`."""
        raise CannotBuild(f"{self.name}: masks are not supported")

    def combine_prompts(self, builder: GraphBuilder, name: str, prompts: Sequence[NodeOutput]) -> NodeOutput:
        """Put encoded prompts together for `denoise`."""
        if len(prompts) == 1:
            return prompts[0]
        raise CannotBuild(f"{self.name}: several prompts for one image are not supported")

    def use_vae(self, builder: GraphBuilder, parts: ModelParts, vae: Model) -> ModelParts:
        """Replace the model's own VAE."""
        return replace(parts, vae=builder.output("vae_loader", "vae_loader", "vae", vae_model=dict(vae)))

    def skip_clip_layers(self, builder: GraphBuilder, parts: ModelParts, count: int) -> ModelParts:
        """Leave out the last `count` layers of the CLIP text encoders."""
        if not count:
            return parts
        raise CannotBuild(f"{self.name}: CLIP skip is not supported")

    def apply_loras(
        self, builder: GraphBuilder, name: str, parts: ModelParts, loras: Sequence[AppliedLoRA]
    ) -> ModelParts:
        """Apply LoRAs to the denoiser and the text encoders."""
        if not loras:
            return parts
        raise CannotBuild(f"{self.name}: LoRAs are not supported")

    def make_seamless(self, builder: GraphBuilder, parts: ModelParts) -> ModelParts:
        """Let opposite edges of the image fit each other."""
        raise CannotBuild(f"{self.name}: seamless images are not supported")

    def build(self, settings: ImageSettings) -> dict[str, Any]:
        """Return the graph as a dict of `id`, `nodes` and `edges`; raises CannotBuild."""
        return _Build(self, settings).graph()


class _Build:
    """One graph of a recipe's blocks, in steps."""

    def __init__(self, recipe: Recipe, settings: ImageSettings) -> None:
        if settings.inpaint_mask and not settings.init_image:
            raise CannotBuild("a mask needs the initial image that it is for")
        self.recipe, self.settings = recipe, settings
        self.builder = GraphBuilder(f"{recipe.name}_{self._mode()}")

    def graph(self) -> dict[str, Any]:
        # 1. model, prompts, seeds
        parts = self._load()
        positive, negative = self._prompts(parts)
        run = self._first_run(positive, negative)
        # 2. the initial image and its mask
        if self.settings.init_image:
            run = self._begin_with(run, parts, self.settings.init_image)
        # 3. the run, and a second one over its enlarged result
        latents = self.recipe.denoise(self.builder, "denoise_latents", parts, run)
        if self.settings.hires_fix:
            latents = self._second_run(run, parts, latents, self.settings.hires_fix)
        # 4. decode, put back what stays, record how it was made
        self._finish(parts, latents)
        graph = self.builder.graph()
        return _pasted(graph, self.settings.paste_target) if self.settings.paste_target else graph

    def _mode(self) -> str:
        if self.settings.inpaint_mask:
            return "inpaint"
        return "img2img" if self.settings.init_image else "txt2img"

    def _load(self) -> ModelParts:
        settings, builder = self.settings, self.builder
        parts = self.recipe.load_model(builder, settings.model)
        parts = self.recipe.skip_clip_layers(builder, parts, settings.clip_skip)
        if settings.vae is not None:
            parts = self.recipe.use_vae(builder, parts, settings.vae)
        parts = self.recipe.apply_loras(builder, "loras", parts, settings.loras)
        return self.recipe.make_seamless(builder, parts) if settings.seamless else parts

    def _prompts(self, parts: ModelParts) -> tuple[NodeOutput, NodeOutput]:
        recipe, builder = self.recipe, self.builder
        text = builder.output(PROMPT, "string", "value", value=recipe.write_prompt(self.settings.prompt))
        negative_text = recipe.write_prompt(self.settings.negative_prompt)
        positive = recipe.encode_prompt(builder, "pos_cond", parts, text)
        negative = recipe.encode_prompt(builder, "neg_cond", parts, negative_text)
        return (
            recipe.combine_prompts(builder, "pos_cond_collect", [positive]),
            recipe.combine_prompts(builder, "neg_cond_collect", [negative]),
        )

    def _first_run(self, positive: NodeOutput, negative: NodeOutput) -> DenoiseRun:
        settings = self.settings
        variation = settings.variation
        if variation:
            seed = self.builder.output(VARIATION, "integer", "value", value=variation.seed)
            variation = replace(variation, seed=seed)
        return DenoiseRun(
            positive,
            negative,
            self.builder.output(SEED, "integer", "value", value=settings.seed),
            settings.width,
            settings.height,
            settings.steps,
            settings.guidance,
            settings.scheduler,
            settings.cfg_rescale,
            variation=variation,
            controls=settings.controls,
        )

    def _begin_with(self, run: DenoiseRun, parts: ModelParts, init_image: InitImage) -> DenoiseRun:
        builder, mask = self.builder, self.settings.inpaint_mask
        image = self._init_image()
        latents = self.recipe.encode_image(builder, "i2l", image, parts.vae)
        run = replace(run, latents=latents, start=round(1.0 - init_image.strength, 6))
        if mask is None:
            return run
        start = 0.0 if mask.fill == "noise" else run.start
        field = {"image_name": mask.mask}
        return replace(
            run, mask=self.recipe.denoise_mask(builder, "denoise_mask", field, image, parts.vae), start=start
        )

    def _init_image(self) -> Mapping[str, str] | NodeOutput:
        """Return the initial image, resized where that is needed."""
        settings, init_image = self.settings, self.settings.init_image
        assert init_image is not None
        field = {"image_name": init_image.image}
        if not init_image.resize:
            return field
        if "resize" not in self.builder.nodes:
            size = {"width": settings.width, "height": settings.height}
            self.builder.node("resize", "img_resize", image=field, resample_mode="lanczos", **size)
        return NodeOutput("resize", "image")

    def _second_run(self, run: DenoiseRun, parts: ModelParts, latents: NodeOutput, fix: HiresFix) -> NodeOutput:
        builder, recipe = self.builder, self.recipe
        size = {"width": fix.width, "height": fix.height}
        if fix.in_pixels:
            image = recipe.decode(builder, "first_image", latents, parts.vae)
            image = builder.output("enlarge", "img_resize", "image", image=image, resample_mode=fix.resample, **size)
            enlarged = recipe.encode_image(builder, "enlarged", image, parts.vae)
        else:
            resized = {"latents": latents, "mode": "bilinear", "antialias": False, **size}
            enlarged = builder.output("enlarged", "lresize", "latents", **resized)
        second = replace(
            run,
            width=fix.width,
            height=fix.height,
            steps=fix.steps,
            scheduler=fix.scheduler or run.scheduler,
            latents=enlarged,
            mask=None,
            start=1.0 - fix.strength,
        )
        return recipe.denoise(builder, "second_denoise", parts, second)

    def _finish(self, parts: ModelParts, latents: NodeOutput) -> None:
        settings, builder = self.settings, self.builder
        mask = settings.inpaint_mask
        pastes = mask is not None and mask.paste and settings.hires_fix is None
        image = self.recipe.decode(builder, "decode" if pastes else OUTPUT, latents, parts.vae)
        if pastes and mask is not None:
            self._put_back(image, mask)
        builder.connect(self._metadata(), OUTPUT, "metadata")
        builder.result(OUTPUT, settings.board_id)

    def _put_back(self, image: NodeOutput, mask: InpaintMask) -> None:
        """Put the pixels of the initial image back where they stay."""
        field: Mapping[str, str] | NodeOutput = {"image_name": mask.mask}
        if mask.feather:
            field = self.builder.output("feather", "img_blur", "image", image=field, radius=float(mask.feather))
        self.builder.node(OUTPUT, "img_paste", base_image=self._init_image(), image=image, mask=field, crop=True)

    def _metadata(self) -> NodeOutput:
        settings, recipe, builder = self.settings, self.recipe, self.builder
        size = settings.hires_fix or settings
        init_image = settings.init_image
        begun = {"init_image": init_image.image, "strength": init_image.strength} if init_image else {}
        return builder.output(
            "core_metadata",
            "core_metadata",
            "metadata",
            generation_mode=None if recipe.metadata_mode is None else f"{recipe.metadata_mode}{self._mode()}",
            positive_prompt=NodeOutput(PROMPT, "value"),
            negative_prompt=recipe.write_prompt(settings.negative_prompt),
            seed=NodeOutput(SEED, "value"),
            width=size.width,
            height=size.height,
            model=dict(settings.model),
            vae=dict(settings.vae) if settings.vae else None,
            rand_device="cpu",
            steps=settings.steps,
            cfg_scale=settings.guidance,
            cfg_rescale_multiplier=settings.cfg_rescale,
            scheduler=settings.scheduler,
            clip_skip=settings.clip_skip,
            loras=[{"model": dict(lora.model), "weight": lora.weight} for lora in settings.loras] or None,
            seamless_x=settings.seamless,
            seamless_y=settings.seamless,
            **_recorded_controls(settings.controls),
            **begun,
        )


def _recorded_controls(controls: Sequence[AppliedControl]) -> dict[str, Any]:
    """Return what an image's metadata says of its ControlNets and T2I-Adapters."""
    recorded: dict[str, list[dict[str, Any]]] = {"controlnets": [], "t2iAdapters": []}
    for control in controls:
        kind = "t2iAdapters" if control.model["type"] == ModelType.T2IAdapter else "controlnets"
        recorded[kind].append(control.fields())
    return {name: entries for name, entries in recorded.items() if entries}


def _pasted(graph: dict[str, Any], target: PasteTarget) -> dict[str, Any]:
    """Return the graph with its result put into a larger image, which is the result now and has the metadata."""
    nodes = {name: node for name, node in graph["nodes"].items() if name != OUTPUT}
    made = graph["nodes"][OUTPUT]
    builder = GraphBuilder(graph["id"], nodes)
    nodes[PASTED] = {name: value for name, value in made.items() if name != "board"}
    nodes[PASTED] |= {"id": PASTED, "is_intermediate": True, "use_cache": True}
    for edge in graph["edges"]:
        end = edge["destination"]
        belongs = end["node_id"] == OUTPUT and end["field"] != "metadata"
        builder.edges.append({**edge, "destination": {**end, "node_id": PASTED}} if belongs else edge)
    part = builder.output(
        "part_in_size",
        "img_resize",
        "image",
        image=NodeOutput(PASTED, "image"),
        resample_mode="lanczos",
        width=target.width,
        height=target.height,
    )
    builder.node(
        OUTPUT,
        "img_paste",
        base_image={"image_name": target.image},
        mask={"image_name": target.mask},
        image=part,
        x=target.left,
        y=target.top,
        crop=True,
    )
    builder.result(OUTPUT, None)
    if "board" in made:
        nodes[OUTPUT]["board"] = made["board"]
    return builder.graph()


_recipes: dict[BaseModelType, Recipe] = {}


def recipe(*bases: BaseModelType) -> Callable[[type[Recipe]], type[Recipe]]:
    """Register the decorated class for models of `bases`."""

    def register(cls: type[Recipe]) -> type[Recipe]:
        _recipes.update(dict.fromkeys(bases, cls()))
        return cls

    return register


@cache
def recipes() -> Mapping[BaseModelType, Recipe]:
    """Return every recipe by base; the families are looked through once."""
    for _ in discovery.modules("recipe"):
        pass  # importing registers
    return _recipes
