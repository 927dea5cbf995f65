"""Stable Diffusion's nodes, from the model's name to the image, in a context of fakes."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from invokeclone.components.autoencoders.vae import image_to_tensor
from invokeclone.families.stable_diffusion import pipeline
from invokeclone.families.stable_diffusion.fields import ModelLoaderOutput
from invokeclone.families.stable_diffusion.nodes.autoencoder import ImageToLatentsInvocation, LatentsToImageInvocation
from invokeclone.families.stable_diffusion.nodes.denoise import DenoiseLatentsMetaInvocation
from invokeclone.families.stable_diffusion.nodes.models import (
    CLIPSkipInvocation,
    FreeUInvocation,
    IdealSizeInvocation,
    MainModelLoaderInvocation,
    SeamlessModeInvocation,
    ideal_size,
)
from invokeclone.families.stable_diffusion.nodes.prompts import CompelInvocation
from invokeclone.graph.context import CanceledException
from invokeclone.graph.invocations.metadata import UnknownModel
from invokeclone.graph.vocabulary.fields import ImageField, LatentsField, MetadataField, TensorField
from invokeclone.graph.vocabulary.model_fields import ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, SubModelType
from tests.fakes_context import FakeContext
from tests.families.stable_diffusion.conftest import CPU, latents_of, settings
from tests.tiny_models import noise_of


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> list[pipeline.DenoiseTask]:
    """Collect the tasks of denoise nodes instead of running them."""
    collected: list[pipeline.DenoiseTask] = []

    def denoise(_unet: Any, task: pipeline.DenoiseTask, *_: Any) -> torch.Tensor:
        collected.append(task)
        return torch.zeros(1, 4, 6, 8)

    monkeypatch.setattr(pipeline, "denoise", denoise)
    return collected


def save(context: FakeContext, tensor: torch.Tensor, seed: int | None = 9) -> LatentsField:
    return LatentsField(latents_name=context.tensors.save(tensor), seed=seed)


class TestModels:
    def test_model_loader_outputs_identifiers_without_loading(
        self, context: FakeContext, model: ModelLoaderOutput, sd1_identifier: ModelIdentifierField
    ):
        assert model.unet.unet == sd1_identifier.model_copy(update={"submodel_type": SubModelType.UNet})
        assert model.unet.scheduler.submodel_type == SubModelType.Scheduler
        assert model.clip.tokenizer.submodel_type == SubModelType.Tokenizer
        assert model.clip.text_encoder.submodel_type == SubModelType.TextEncoder
        assert model.vae.vae.submodel_type == SubModelType.VAE
        assert (model.unet.loras, model.clip.skipped_layers, model.vae.seamless_axes) == ([], 0, [])
        assert context.models.loaded == []

    def test_a_model_without_a_record(self, context: FakeContext, sd1_identifier: ModelIdentifierField):
        deleted = sd1_identifier.model_copy(update={"key": "gone"})
        with pytest.raises(UnknownModel, match="gone"):
            MainModelLoaderInvocation(model=deleted).invoke(context)

    def test_clip_skip_seamless_and_freeu_settings(self, context: FakeContext, model: ModelLoaderOutput):
        skipped = CLIPSkipInvocation(clip=model.clip, skipped_layers=1).invoke(context).clip
        assert CLIPSkipInvocation(clip=skipped, skipped_layers=2).invoke(context).clip.skipped_layers == 3
        assert model.clip.skipped_layers == 0
        seamless = SeamlessModeInvocation(unet=model.unet, vae=None, seamless_y=False).invoke(context)
        assert seamless.unet.seamless_axes == ["x"]
        assert seamless.vae is None
        freed = FreeUInvocation(unet=model.unet).invoke(context).unet.freeu_config
        assert (freed.b1, freed.b2, freed.s1, freed.s2) == (1.2, 1.4, 0.9, 0.2)


class TestIdealSize:
    @pytest.mark.parametrize(
        ("aspect", "side", "size"),
        [(1.0, 512, (512, 512)), (1024 / 576, 512, (680, 384)), (0.5, 512, (360, 720)), (8.0, 512, (2048, 256))],
    )
    def test_proportions_and_area(self, aspect: float, side: float, size: tuple[int, int]):
        assert ideal_size(aspect, side) == size

    @pytest.mark.parametrize(
        ("base", "side"),
        [
            (BaseModelType.StableDiffusion1, 512),
            (BaseModelType.StableDiffusion2, 768),
            (BaseModelType.StableDiffusionXL, 1024),
            (BaseModelType.Flux, 1024),
            (BaseModelType.Flux2, 1024),
            (BaseModelType.StableDiffusion3, 1024),
        ],
    )
    def test_ideal_size_depends_on_the_base(
        self, context: FakeContext, model: ModelLoaderOutput, base: BaseModelType, side: int
    ):
        context.models.record = SimpleNamespace(**{**vars(context.models.record), "base": base})
        for multiplier in (1.0, 1.5):
            node = IdealSizeInvocation(width=100, height=100, unet=model.unet, multiplier=multiplier)
            size = node.invoke(context)
            assert size.width == size.height == side * multiplier

    def test_a_base_without_an_architecture(self, context: FakeContext, model: ModelLoaderOutput):
        context.models.record = SimpleNamespace(**{**vars(context.models.record), "base": BaseModelType.Unknown})
        with pytest.raises(ValueError, match="no ideal size for models of base unknown"):
            IdealSizeInvocation(unet=model.unet).invoke(context)


class TestPrompts:
    @pytest.mark.parametrize("enabled", [False, True])
    def test_tokens_are_logged_when_enabled(self, context: FakeContext, model: ModelLoaderOutput, enabled: bool):
        settings(context, log_tokenization=enabled)
        CompelInvocation(prompt="a (cat)1.2", clip=model.clip).invoke(context)
        assert len(context.logger.lines) == enabled
        if enabled:
            assert "of the prompt 'a (cat)1.2'" in context.logger.lines[0][1]
            assert "\n1.2: " in context.logger.lines[0][1]

    def test_skipped_layers_are_left_out(
        self, context: FakeContext, model: ModelLoaderOutput, sd1_parts: dict[str, Any]
    ):
        clip = model.clip.model_copy(update={"skipped_layers": 1})
        name = CompelInvocation(prompt="a cat", clip=clip).invoke(context).conditioning.conditioning_name
        embeds = context.conditioning.load(name).conditionings[0].embeds
        expected = pipeline.encode(sd1_parts["tokenizer"], sd1_parts["text_encoder"], "a cat", CPU, skip=1)
        assert torch.allclose(embeds, expected, atol=1e-5)


class TestDenoise:
    def test_an_image_from_a_prompt(self, context: FakeContext, model: ModelLoaderOutput, denoise_node: Any):
        output = denoise_node().invoke(context)
        assert (output.width, output.height, output.latents.seed) == (64, 48, None)
        image = LatentsToImageInvocation(latents=output.latents, vae=model.vae, fp32=True).invoke(context)
        assert (image.width, image.height) == (64, 48)
        assert context.images.last().mode == "RGB"
        assert context.models.loaded == ["text_encoder", "tokenizer"] * 2 + ["unet", "scheduler", "vae"]
        messages = [message for message, _ in context.util.progress]
        assert messages == ["Building conditioning", "Building conditioning", "Running VAE decoder"]
        assert [(state.step, state.total_steps) for state in context.util.steps] == [(n, 4) for n in range(5)]
        assert context.util.bases == {BaseModelType.StableDiffusion1}
        again = denoise_node().invoke(context)
        assert torch.equal(latents_of(context, again), latents_of(context, output))

    def test_the_seed_comes_from_the_noise_or_the_latents(
        self, context: FakeContext, denoise_node: Any, tasks: list[pipeline.DenoiseTask]
    ):
        latents = torch.zeros(1, 4, 6, 8)
        denoise_node(latents=save(context, latents)).invoke(context)
        denoise_node(latents=save(context, latents), noise=None).invoke(context)
        denoise_node(latents=save(context, latents, seed=None), noise=None).invoke(context)
        assert [list(task.seeds) for task in tasks] == [[3], [9], [0]]

    def test_prediction_type_comes_from_the_record(
        self, context: FakeContext, denoise_node: Any, tasks: list[pipeline.DenoiseTask]
    ):
        """Of a folder too, whatever its scheduler's configuration says."""
        context.models.record = SimpleNamespace(**{**vars(context.models.record), "prediction_type": "v_prediction"})
        denoise_node().invoke(context)
        assert tasks[0].prediction_type == "v_prediction"
        del context.models.record.prediction_type
        denoise_node().invoke(context)
        assert tasks[1].prediction_type is None

    def test_the_published_scheduler_configuration_reaches_the_sampler(self, context: FakeContext, denoise_node: Any):
        denoise_node(steps=10, scheduler="euler").invoke(context)
        timesteps = [state.timestep for state in context.util.steps[1:]]
        assert timesteps == [999, 888, 777, 666, 555, 444, 333, 222, 111, 0], "evenly spaced, not leading"

    def test_canceling(self, context: FakeContext, denoise_node: Any):
        context.util.cancel_at = 2
        with pytest.raises(CanceledException):
            denoise_node(steps=30).invoke(context)
        assert len(context.util.steps) == 3
        unet = context.models.cache.get("tiny:unet", lambda: pytest.fail("it is loaded"))
        assert unet.locks == 0

    def test_hidiffusion_requires_a_published_unet_structure(self, context: FakeContext, denoise_node: Any):
        with pytest.raises(ValueError, match="turn it off for this model"):
            denoise_node(hidiffusion=True).invoke(context)

    @pytest.mark.parametrize("scale", [0.5, [2.0, 0.9], []])
    def test_guidance_below_one_is_refused(self, denoise_node: Any, scale: Any):
        with pytest.raises(ValidationError, match="at least 1"):
            denoise_node(cfg_scale=scale)

    def test_its_parameters_are_added_to_metadata(self, context: FakeContext, denoise_node: Any):
        metadata = MetadataField({"positive_prompt": "a cat", "steps": 1})
        output = denoise_node(DenoiseLatentsMetaInvocation, metadata=metadata).invoke(context)
        record = output.metadata.root
        assert (record["steps"], record["seed"], record["scheduler"], record["positive_prompt"]) == (
            4, 3, "euler", "a cat",
        )  # fmt: skip
        assert record["model"]["key"] == "tiny"
        assert record["width"] == output.width == 64

    def test_a_prompt_for_a_region(self, context: FakeContext, denoise_node: Any, model: ModelLoaderOutput):
        mask = torch.zeros(1, 48, 64, dtype=torch.bool)
        mask[..., :32] = True
        field = TensorField(tensor_name=context.tensors.save(mask))
        left = CompelInvocation(prompt="a dog", clip=model.clip, mask=field).invoke(context).conditioning
        assert left.mask == field
        plain = denoise_node()
        output = denoise_node(positive_conditioning=[plain.positive_conditioning, left]).invoke(context)
        assert latents_of(context, output).isfinite().all()
        assert not torch.equal(latents_of(context, output), latents_of(context, plain.invoke(context)))


class TestAutoencoder:
    @pytest.fixture
    def image(self, context: FakeContext) -> ImageField:
        return context.images.put(Image.radial_gradient("L").resize((128, 64)).convert("RGB"))

    def test_encoding_ignores_seamless_axes(self, context: FakeContext, model: ModelLoaderOutput, image: ImageField):
        seamless = model.vae.model_copy(update={"seamless_axes": ["x", "y"]})
        plain, same = (
            latents_of(context, ImageToLatentsInvocation(image=image, vae=vae).invoke(context))
            for vae in (model.vae, seamless)
        )
        assert torch.equal(plain, same)
        latents = save(context, plain)
        LatentsToImageInvocation(latents=latents, vae=model.vae).invoke(context)
        decoded = context.images.last()
        LatentsToImageInvocation(latents=latents, vae=seamless).invoke(context)
        assert context.images.last().tobytes() != decoded.tobytes(), "decoding does not ignore them"

    def test_the_setting_forces_tiles_in_both_directions(
        self, context: FakeContext, model: ModelLoaderOutput, image: ImageField
    ):
        def both() -> tuple[torch.Tensor, bytes]:
            latents = latents_of(context, ImageToLatentsInvocation(image=image, vae=model.vae).invoke(context))
            LatentsToImageInvocation(latents=save(context, noise_of(1, 1, 4, 8, 16)), vae=model.vae).invoke(context)
            return latents, context.images.last().tobytes()

        whole = both()
        tiled = ImageToLatentsInvocation(image=image, vae=model.vae, tiled=True).invoke(context)
        settings(context, force_tiled_decode=True)
        forced = both()
        assert torch.equal(forced[0], latents_of(context, tiled))
        assert not torch.equal(forced[0], whole[0])
        assert forced[1] != whole[1]

    def test_color_compensation_is_for_sdxl(
        self,
        context: FakeContext,
        model: ModelLoaderOutput,
        sd1_parts: dict[str, Any],
        monkeypatch: pytest.MonkeyPatch,
    ):
        image = context.images.put(Image.new("RGB", (16, 16), (200, 100, 50)))

        def encode(choice: str) -> torch.Tensor:
            node = ImageToLatentsInvocation(image=image, vae=model.vae, fp32=True, color_compensation=choice)
            return latents_of(context, node.invoke(context))

        assert torch.equal(encode("None"), encode("SDXL")), "not for other bases"
        monkeypatch.setattr(context.models.record, "base", BaseModelType.StableDiffusionXL)
        pixels = image_to_tensor(Image.new("RGB", (16, 16), (200, 100, 50))) * 1.015 - 0.002
        expected = pipeline.encode_image(sd1_parts["vae"], pixels, CPU, fp32=True)
        assert torch.allclose(encode("SDXL"), expected, atol=1e-5)
        assert not torch.allclose(encode("SDXL"), encode("None"), atol=1e-5)


def test_nodes_do_not_import_torch_before_they_run():
    import subprocess

    code = (
        "import sys; from invokeclone.graph.invocations import registry; registry.discover();"
        "assert 'denoise_latents' in registry.nodes(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
