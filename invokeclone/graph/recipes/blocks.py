"""The interface of a family's recipe: building blocks that add nodes to a graph."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from invokeclone.graph.builder import GraphBuilder, NodeOutput
from invokeclone.graph.prompts import Prompt
from invokeclone.graph.recipes.assembly import GraphAssembly
from invokeclone.graph.recipes.runs import DenoiseRun, ModelParts, PartKind, PromptDetails, StyleModelKind
from invokeclone.graph.recipes.settings import AppliedLoRA, CannotBuild, ControlKind, ImageSettings, Model


class Recipe(ABC):
    """A family's building blocks. Each adds nodes whose ids begin with `name` and returns the output of the result.

    Optional blocks raise CannotBuild unless a family overrides them.
    """

    name: str
    """Prefix of the ids of graphs."""
    weights_prompts: bool = False
    """Whether the family's prompt language has weights; if not, `write_prompt` leaves them out."""
    metadata_mode: str | None = None
    """Prefix of the generation mode in image metadata, such as `flux_`; None: the mode is not recorded."""
    guidance_name = "cfg_scale"
    """Name of the guidance in image metadata."""
    has_negative_prompt = True
    """Whether runs use a negative prompt unless a client asks for one."""
    aesthetic_scores: tuple[float, float] | None = None
    """Default aesthetic scores of the positive and the negative prompt, for models conditioned on them."""
    separate_parts: Mapping[str, PartKind] = {}
    """The separate models that `load_model` takes, by their names as its `parts`."""
    reads_masked_image = False
    """Whether the model reads image and mask beside the noise. Runs with a mask then begin with noise."""
    has_control_modes = False
    """Whether ControlNets have a balance between prompt and control image."""
    control_kinds: Mapping[ControlKind, int] = {}
    """The modes of union ControlNets by what their images show."""
    style_model: StyleModelKind | None = None
    """The models that append images to prompts, None if there are none."""
    sets_shift = False
    """Whether a run can shift its noise levels by a factor of its own."""
    schedule_shift: Mapping[str, float] = {}
    """The shift that schedules of the family's models usually have, by the names of its parameters."""

    def uses_negative_prompt(self, guidance: float) -> bool:
        """Return whether runs with this guidance use a negative prompt."""
        return self.has_negative_prompt

    @abstractmethod
    def load_model(self, builder: GraphBuilder, model: Model, parts: Mapping[str, Model] | None = None) -> ModelParts:
        """Load the parts of a main model; `parts` are separate models, by the names in `separate_parts`."""

    @abstractmethod
    def write_prompt(self, prompt: Prompt) -> str:
        """Return the prompt in the family's prompt language."""

    def drops_weights(self, prompt: Prompt) -> bool:
        """Return whether `write_prompt` leaves out weights of a prompt."""
        return prompt.is_weighted and not self.weights_prompts

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

    def encode_detailed_prompt(
        self,
        builder: GraphBuilder,
        name: str,
        parts: ModelParts,
        text: str | NodeOutput,
        details: PromptDetails,
        region: NodeOutput | None = None,
    ) -> NodeOutput:
        """Encode as `encode_prompt` does, with additional conditioning such as sizes."""
        raise CannotBuild(f"{self.name}: prompts with sizes, crops or aesthetic scores are not supported")

    @abstractmethod
    def denoise(self, builder: GraphBuilder, name: str, parts: ModelParts, run: DenoiseRun) -> NodeOutput:
        """Denoise and return the output `latents`; the node must also have the outputs `width` and `height`."""

    @abstractmethod
    def decode(
        self, builder: GraphBuilder, name: str, latents: NodeOutput, vae: NodeOutput, tile: int | None = None
    ) -> NodeOutput:
        """Decode latents into an image, in tiles of `tile` × `tile` pixels if given."""

    def encode_image(
        self, builder: GraphBuilder, name: str, image: Mapping[str, str] | NodeOutput, vae: NodeOutput
    ) -> NodeOutput:
        """Encode an image into latents."""
        raise CannotBuild(f"{self.name}: initial images are not supported")

    def denoise_mask(
        self,
        builder: GraphBuilder,
        name: str,
        mask: Mapping[str, str] | NodeOutput,
        image: Mapping[str, str] | NodeOutput | None,
        vae: NodeOutput,
    ) -> NodeOutput:
        """Make a denoise mask from a mask image whose white pixels stay unchanged."""
        raise CannotBuild(f"{self.name}: masks are not supported")

    def combine_prompts(self, builder: GraphBuilder, name: str, prompts: Sequence[NodeOutput]) -> NodeOutput:
        """Combine encoded prompts for `denoise`."""
        if len(prompts) == 1:
            return prompts[0]
        raise CannotBuild(f"{self.name}: several prompts for one image are not supported")

    def use_vae(self, builder: GraphBuilder, parts: ModelParts, vae: Model) -> ModelParts:
        """Replace the model's VAE."""
        return replace(parts, vae=builder.output("vae_loader", "vae_loader", "vae", vae_model=dict(vae)))

    def skip_clip_layers(self, builder: GraphBuilder, parts: ModelParts, count: int) -> ModelParts:
        """Skip the last `count` layers of the CLIP text encoders."""
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
        """Make the image tileable: opposite edges match."""
        raise CannotBuild(f"{self.name}: seamless images are not supported")

    def build(self, settings: ImageSettings) -> dict[str, Any]:
        """Return the graph as a dict of `id`, `nodes` and `edges`. Raises CannotBuild."""
        return GraphAssembly(self, settings).graph()
