"""Assembly of a recipe's blocks into a whole graph: load, encode, denoise, refine, decode, record metadata."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from invokeclone.graph.builder import GraphBuilder, NodeOutput
from invokeclone.graph.recipes.registry import find_recipe, recipes
from invokeclone.graph.recipes.runs import DenoiseRun, ModelParts, PromptDetails
from invokeclone.graph.recipes.settings import (
    OUTPUT,
    PASTED,
    PROMPT,
    SEED,
    VARIATION,
    AppliedControl,
    CannotBuild,
    HiresFix,
    ImageSettings,
    InitImage,
    InpaintMask,
    PasteTarget,
    Refiner,
)
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelType

if TYPE_CHECKING:
    from invokeclone.graph.recipes.blocks import Recipe


class GraphAssembly:
    """Builds one graph from a recipe's blocks."""

    def __init__(self, recipe: "Recipe", settings: ImageSettings, builder: GraphBuilder | None = None) -> None:
        if settings.inpaint_mask and not settings.init_image:
            raise CannotBuild("an inpaint mask requires an initial image")
        self.recipe, self.settings = recipe, settings
        self.builder = builder or GraphBuilder(f"{recipe.name}_{self._mode()}")
        self.prompt_id = f"{self.builder.scope}{PROMPT}"

    def graph(self) -> dict[str, Any]:
        """Return the graph as a dict of `id`, `nodes` and `edges`; raises CannotBuild."""
        # 1. model, prompts, seeds
        parts = self._load()
        positive, negative = self._prompts(parts)
        run = self._first_run(positive, negative)
        # 2. the initial image and its mask
        if self.settings.init_image:
            run = self._apply_init_image(run, parts, self.settings.init_image)
        # 3. the run, and a second run over its enlarged result
        latents = self._denoise("denoise_latents", parts, run)
        last = self
        if self.settings.hires_fix:
            last, parts, latents = self._second_run(run, parts, latents, self.settings.hires_fix)
        # 4. decode, restore the unmasked pixels, record metadata
        self._finish(last.recipe, parts, latents)
        graph = self.builder.graph()
        return _paste_into_target(graph, self.settings.paste_target) if self.settings.paste_target else graph

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

    def _prompts(self, parts: ModelParts) -> tuple[NodeOutput, NodeOutput | None]:
        self.builder.node(PROMPT, "string", value=self.recipe.write_prompt(self.settings.prompt))
        return self._encode_prompts(self.recipe, self.builder, parts, self.recipe.aesthetic_scores)

    def _encode_prompts(
        self, recipe: "Recipe", builder: GraphBuilder, parts: ModelParts, scores: tuple[float, float] | None
    ) -> tuple[NodeOutput, NodeOutput | None]:
        """Encode the positive prompt, and the negative one if the recipe has one.

        `scores` are aesthetic scores, for models conditioned on them.
        """
        texts: list[str | NodeOutput] = [NodeOutput(self.prompt_id, "value")]
        if recipe.uses_negative_prompt(self.settings.guidance) or self.settings.cfg_scale > 1.0:
            texts.append(recipe.write_prompt(self.settings.negative_prompt))
        encoded = []
        for number, (name, text) in enumerate(zip(("pos_cond", "neg_cond"), texts, strict=False)):
            if scores is None:
                prompt = recipe.encode_prompt(builder, name, parts, text)
            else:
                details = PromptDetails(aesthetic_score=scores[number])
                prompt = recipe.encode_detailed_prompt(builder, name, parts, text, details)
            encoded.append(recipe.combine_prompts(builder, f"{name}_collect", [prompt]))
        return encoded[0], encoded[1] if len(encoded) > 1 else None

    def _denoise(self, name: str, parts: ModelParts, run: DenoiseRun) -> NodeOutput:
        """Denoise; a refiner, if there is one, denoises the last part of the run."""
        refiner = self.settings.refiner
        if refiner is None:
            return self.recipe.denoise(self.builder, name, parts, run)
        switch = max(run.start, refiner.start)
        latents = self.recipe.denoise(self.builder, name, parts, replace(run, end=switch))
        recipe, parts, positive, negative = self._refiner
        refiner_run = replace(
            run,
            positive=positive,
            negative=negative,
            steps=refiner.steps or run.steps,
            guidance=refiner.guidance or run.guidance,
            cfg_rescale=0.0,
            scheduler=refiner.scheduler or run.scheduler,
            start=switch,
            latents=latents,
            add_noise=False,
            variation=None,
            controls=(),
            references=(),
        )
        return recipe.denoise(self._refiner_builder, name, parts, refiner_run)

    @property
    def _refiner_builder(self) -> GraphBuilder:
        return self.builder.with_scope(f"{self.builder.scope}refiner_")

    @cached_property
    def _refiner(self) -> "tuple[Recipe, ModelParts, NodeOutput, NodeOutput | None]":
        """The refiner's recipe, parts, and encoded prompts; loaded once for all runs."""
        refiner, builder = self.settings.refiner, self._refiner_builder
        assert refiner is not None
        recipe = recipes()[BaseModelType(refiner.model["base"])]
        parts = recipe.load_model(builder, refiner.model)
        if self.settings.seamless:
            parts = recipe.make_seamless(builder, parts)
        positive, negative = self._encode_prompts(
            recipe, builder, parts, (refiner.positive_score, refiner.negative_score)
        )
        return recipe, parts, positive, negative

    def _first_run(self, positive: NodeOutput, negative: NodeOutput | None) -> DenoiseRun:
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
            settings.cfg_scale,
            variation=variation,
            controls=[self._preprocess_control(number, control) for number, control in enumerate(settings.controls)],
            references=settings.references,
        )

    def _preprocess_control(self, number: int, control: AppliedControl) -> AppliedControl:
        """Add the node that preprocesses a control's image; return the control with that node's output as its image."""
        preprocessor = control.preprocessor
        if preprocessor is None:
            return control
        image = {"image_name": control.image} if isinstance(control.image, str) else control.image
        control_image = self.builder.output(
            f"control_image_{number}", preprocessor.node, "image", image=image, **preprocessor.inputs
        )
        return replace(control, image=control_image, preprocessor=None)

    def _apply_init_image(self, run: DenoiseRun, parts: ModelParts, init_image: InitImage) -> DenoiseRun:
        builder, mask = self.builder, self.settings.inpaint_mask
        image = self._init_image()
        if mask is not None and self.recipe.reads_masked_image:
            field = {"image_name": mask.mask}
            return replace(run, mask=self.recipe.denoise_mask(builder, "denoise_mask", field, image, parts.vae))
        latents = self.recipe.encode_image(builder, "i2l", image, parts.vae)
        run = replace(run, latents=latents, start=round(1.0 - init_image.strength, 6))
        if mask is None:
            return run
        start = 0.0 if mask.fill == "noise" else run.start
        masked = self.recipe.denoise_mask(builder, "denoise_mask", self._mask_image(mask), image, parts.vae)
        return replace(run, mask=masked, start=start)

    def _init_image(self) -> Mapping[str, str] | NodeOutput:
        """Return the initial image, resized if needed."""
        assert self.settings.init_image is not None
        return self._at_size("resize", self.settings.init_image.image, "lanczos")

    def _mask_image(self, mask: InpaintMask) -> Mapping[str, str] | NodeOutput:
        """Return the mask image, resized if the initial image is."""
        return self._at_size("resize_mask", mask.mask, "bilinear")

    def _at_size(self, name: str, image: str, method: str) -> Mapping[str, str] | NodeOutput:
        settings, field = self.settings, {"image_name": image}
        if settings.init_image is None or not settings.init_image.resize:
            return field
        if name not in self.builder.nodes:
            size = {"width": settings.width, "height": settings.height}
            self.builder.node(name, "img_resize", image=field, resample_mode=method, **size)
        return NodeOutput(name, "image")

    def _second_run(
        self, run: DenoiseRun, parts: ModelParts, latents: NodeOutput, fix: HiresFix
    ) -> "tuple[GraphAssembly, ModelParts, NodeOutput]":
        """Denoise the enlarged result of the first run; return what decodes it and the latents."""
        builder, first, first_parts = self.builder, self.recipe, parts
        last: GraphAssembly = self
        if (settings := self.settings.second_pass) is not None:
            recipe = find_recipe(BaseModelType(settings.model["base"]), settings.variant)
            assert recipe is not None
            last = GraphAssembly(recipe, settings, builder.with_scope("second_"))
            parts = last._load()
            run = last._with_settings(run, *last._prompts(parts))
        size = {"width": fix.width, "height": fix.height}
        if fix.in_pixels:
            image = first.decode(builder, "first_image", latents, first_parts.vae)
            image = builder.output("enlarge", "img_resize", "image", image=image, resample_mode=fix.resample, **size)
            enlarged = last.recipe.encode_image(builder, "enlarged", image, parts.vae)
        else:
            resized = {"latents": latents, "mode": fix.interpolation, "antialias": fix.antialias, **size}
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
        name = "second_denoise" if last is self else "denoise"
        return last, parts, last._denoise(name, parts, second)

    def _with_settings(self, run: DenoiseRun, positive: NodeOutput, negative: NodeOutput | None) -> DenoiseRun:
        """Return another assembly's run with the prompts, guidance and scheduler of this one."""
        settings = self.settings
        return replace(
            run,
            positive=positive,
            negative=negative,
            guidance=settings.guidance,
            cfg_scale=settings.cfg_scale,
            cfg_rescale=settings.cfg_rescale,
            scheduler=settings.scheduler,
        )

    def _finish(self, recipe: "Recipe", parts: ModelParts, latents: NodeOutput) -> None:
        settings, builder = self.settings, self.builder
        mask = settings.inpaint_mask
        pastes = mask is not None and mask.paste and settings.hires_fix is None
        image = recipe.decode(builder, "decode" if pastes else OUTPUT, latents, parts.vae)
        if pastes and mask is not None:
            self._paste_result(image, mask)
        builder.connect(self._metadata(), OUTPUT, "metadata")
        builder.result(OUTPUT, settings.board_id)

    def _paste_result(self, image: NodeOutput, mask: InpaintMask) -> None:
        """Paste the result over the initial image, which keeps its pixels where the mask is white."""
        field = self._mask_image(mask)
        if mask.feather:
            field = self.builder.output("feather", "img_blur", "image", image=field, radius=float(mask.feather))
        self.builder.node(OUTPUT, "img_paste", base_image=self._init_image(), image=image, mask=field, crop=True)

    def _metadata(self) -> NodeOutput:
        settings, recipe, builder = self.settings, self.recipe, self.builder
        size = settings.hires_fix or settings
        init_image = settings.init_image
        init_metadata = {"init_image": init_image.image, "strength": init_image.strength} if init_image else {}
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
            cfg_rescale_multiplier=settings.cfg_rescale,
            scheduler=settings.scheduler,
            clip_skip=settings.clip_skip,
            loras=[{"model": dict(lora.model), "weight": lora.weight} for lora in settings.loras] or None,
            seamless_x=settings.seamless,
            seamless_y=settings.seamless,
            **({"cfg_scale": settings.cfg_scale} if settings.cfg_scale > 1.0 else {}),
            **{recipe.guidance_name: settings.guidance},
            **_adapter_metadata(settings),
            **({} if settings.refiner is None else self._refiner_metadata(settings.refiner)),
            **init_metadata,
        )

    def _refiner_metadata(self, refiner: Refiner) -> dict[str, Any]:
        return {
            "refiner_model": dict(refiner.model),
            "refiner_steps": refiner.steps or self.settings.steps,
            "refiner_cfg_scale": refiner.guidance or self.settings.guidance,
            "refiner_scheduler": refiner.scheduler or self.settings.scheduler,
            "refiner_positive_aesthetic_score": refiner.positive_score,
            "refiner_negative_aesthetic_score": refiner.negative_score,
            "refiner_start": refiner.start,
        }


def _adapter_metadata(settings: ImageSettings) -> dict[str, Any]:
    """Return the metadata of ControlNets, T2I-Adapters and IP-Adapters."""
    metadata: dict[str, list[dict[str, Any]]] = {"controlnets": [], "t2iAdapters": [], "ipAdapters": []}
    for control in settings.controls:
        if control.model["type"] == ModelType.ControlLoRa:
            continue  # InvokeAI has no metadata of them
        kind = "t2iAdapters" if control.model["type"] == ModelType.T2IAdapter else "controlnets"
        metadata[kind].append(control.fields())
    metadata["ipAdapters"] = [reference.fields() for reference in settings.references if reference.model is not None]
    return {name: entries for name, entries in metadata.items() if entries}


def _paste_into_target(graph: dict[str, Any], target: PasteTarget) -> dict[str, Any]:
    """Return the graph with its result pasted into a larger image, which becomes the result and gets the metadata."""
    nodes = {name: node for name, node in graph["nodes"].items() if name != OUTPUT}
    output_node = graph["nodes"][OUTPUT]
    builder = GraphBuilder(graph["id"], nodes)
    nodes[PASTED] = {name: value for name, value in output_node.items() if name != "board"}
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
    if "board" in output_node:
        nodes[OUTPUT]["board"] = output_node["board"]
    return builder.graph()
