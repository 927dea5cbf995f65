"""IP-Adapters against diffusers' own with the same tiny weights, and the node that makes images a prompt."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers.models.embeddings import IPAdapterFullImageProjection, IPAdapterPlusImageProjection
from PIL import Image
from pydantic import ValidationError
from safetensors.torch import save_file

from invokeclone.components.clip.vision import pixels
from invokeclone.components.control.fields import IPAdapterField
from invokeclone.components.control.image_encoders import ImageEncoderMissing
from invokeclone.components.control.image_projections import load_projection
from invokeclone.engine.loading import loaders
from invokeclone.families.stable_diffusion import ip_adapter
from invokeclone.families.stable_diffusion.attention import CrossAttention, cross_attention
from invokeclone.families.stable_diffusion.conditioning import BasicConditioningInfo, TextConditioning
from invokeclone.families.stable_diffusion.denoiser import UNetDenoiser
from invokeclone.families.stable_diffusion.ip_adapter import ImagePrompt
from invokeclone.families.stable_diffusion.nodes.ip_adapter import IPAdapterInvocation
from invokeclone.graph.vocabulary.fields import TensorField
from invokeclone.graph.vocabulary.model_fields import ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelFormat, ModelType
from tests.fakes_context import FakeContext
from tests.families.stable_diffusion.conftest import CPU, latents_of, settings
from tests.tiny_models import noise_of

WIDTH = 32
"""Of the tiny UNet's text, and so of image tokens."""
EMBEDS = 24
HIDDEN = 16


@pytest.fixture(scope="module")
def encoder() -> Any:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(3)
    config = CLIPVisionConfig(
        hidden_size=HIDDEN, intermediate_size=20, num_hidden_layers=2, num_attention_heads=2, patch_size=56,
        projection_dim=EMBEDS,
    )  # fmt: skip
    return CLIPVisionModelWithProjection(config).eval()


def linear_weights() -> dict[str, torch.Tensor]:
    return {
        "proj.weight": noise_of(1, 4 * WIDTH, EMBEDS),
        "proj.bias": noise_of(2, 4 * WIDTH),
        "norm.weight": noise_of(3, WIDTH),
        "norm.bias": noise_of(4, WIDTH),
    }


def tensors(unet: Any) -> dict[str, torch.Tensor]:
    """Return an IP-Adapter's file for a UNet, with a linear projection."""
    result = {f"image_proj.{name}": value for name, value in linear_weights().items()}
    for number, (name, _) in enumerate(unet.attn_processors.items()):
        if ".attn2." in name:
            width = unet.get_submodule(name.removesuffix(".processor")).to_k.out_features
            result[f"ip_adapter.{number}.to_k_ip.weight"] = noise_of(10 + number, width, WIDTH)
            result[f"ip_adapter.{number}.to_v_ip.weight"] = noise_of(50 + number, width, WIDTH)
    return result


@pytest.fixture
def adapter(sd1_parts: dict[str, Any], tmp_path: Path) -> ip_adapter.IPAdapter:
    save_file(tensors(sd1_parts["unet"]), tmp_path / "adapter.safetensors")
    return ip_adapter.load(tmp_path / "adapter.safetensors", torch.float32)


IMAGES = [
    Image.linear_gradient("L").resize((60, 40)).convert("RGB"),
    Image.radial_gradient("L").resize((30, 90)).convert("RGB"),
]


def prompts(tokens: int = 3) -> TextConditioning:
    """Return a negative and a positive row."""
    sides = [BasicConditioningInfo(noise_of(seed, 1, tokens, WIDTH)) for seed in (7, 8)]
    rows = [TextConditioning.of_prompts([(side, None)], positive=n == 1) for n, side in enumerate(sides)]
    return rows[0].concat(rows[1])


def prompt(adapter: Any, encoder: Any, images: list[Image.Image], **changes: Any) -> ImagePrompt:
    return ImagePrompt(*ip_adapter.encode(adapter, encoder, images, CPU), **changes)


def predict(unet: Any, *images: ImagePrompt, index: int = 0, count: int = 1) -> torch.Tensor:
    attention = CrossAttention(8, 8, torch.float32, CPU, images)
    latents = noise_of(1).repeat(2, 1, 1, 1)
    denoiser = UNetDenoiser(unet, attention=attention, index=index, count=count)
    with torch.inference_mode(), cross_attention(unet, attention):
        return denoiser(latents, torch.tensor(500), prompts())


class TestAgainstDiffusers:
    @pytest.mark.parametrize("number_of_images", [1, 2])
    def test_unet_output_matches_diffusers(
        self, sd1_parts: dict[str, Any], adapter: Any, encoder: Any, number_of_images: int
    ):
        """Diffusers' attention processors and image projection, which it puts into a copy of the UNet."""
        import copy

        unet, images = sd1_parts["unet"], IMAGES[:number_of_images]
        result = predict(unet, prompt(adapter, encoder, images, weight=0.7))
        flat = tensors(unet)
        state = {
            part: {n.removeprefix(f"{part}."): v for n, v in flat.items() if n.startswith(f"{part}.")}
            for part in ("image_proj", "ip_adapter")
        }
        reference = copy.deepcopy(unet)
        reference._load_ip_adapter_weights([state], low_cpu_mem_usage=False)
        for processor in reference.attn_processors.values():
            if hasattr(processor, "scale"):
                processor.scale = [0.7]
        with torch.inference_mode():
            embeds = encoder(pixels(images)).image_embeds
            embeds_pair = torch.stack([torch.zeros_like(embeds), embeds])
            expected = reference(
                noise_of(1).repeat(2, 1, 1, 1),
                torch.tensor(500),
                encoder_hidden_states=prompts().embeds,
                added_cond_kwargs={"image_embeds": [embeds_pair]},
            ).sample
        assert torch.allclose(result, expected, atol=1e-5)
        assert not torch.allclose(result, predict(unet), atol=1e-2)

    @pytest.mark.parametrize("kind", ["full", "resampler"])
    def test_projections_match_diffusers(self, encoder: Any, kind: str):
        torch.manual_seed(5)
        if kind == "full":
            reference: Any = IPAdapterFullImageProjection(HIDDEN, WIDTH)
            names = {"proj.0": "ff.net.0.proj", "proj.2": "ff.net.2", "proj.3": "norm"}
        else:
            reference = IPAdapterPlusImageProjection(
                embed_dims=HIDDEN, output_dims=WIDTH, hidden_dims=128, depth=2, dim_head=64, heads=2, num_queries=3
            )
            names = {"proj_in": "proj_in", "proj_out": "proj_out", "norm_out": "norm_out"}
            for layer in range(2):
                at, block = f"layers.{layer}", f"layers.{layer}"
                names |= {
                    f"{at}.0.norm1": f"{block}.ln0",
                    f"{at}.0.norm2": f"{block}.ln1",
                    f"{at}.0.to_q": f"{block}.attn.to_q",
                    f"{at}.0.to_out": f"{block}.attn.to_out.0",
                    f"{at}.1.0": f"{block}.ff.0",
                    f"{at}.1.1": f"{block}.ff.1.net.0.proj",
                    f"{at}.1.3": f"{block}.ff.1.net.2",
                }
        weights = dict(reference.state_dict())
        state = {
            f"{name}.{part}": weights[f"{other}.{part}"]
            for name, other in names.items()
            for part in ("weight", "bias")
            if f"{other}.{part}" in weights
        }
        if kind == "resampler":
            state["latents"] = weights["latents"]
            for layer in range(2):
                pair = [weights[f"layers.{layer}.attn.to_{letter}.weight"] for letter in "kv"]
                state[f"layers.{layer}.0.to_kv.weight"] = torch.cat(pair)
        projection = load_projection(state, torch.float32)
        inputs = pixels(IMAGES)
        with torch.inference_mode():
            images, nothing = projection.tokens(encoder, inputs)
            for result, taken in ((images, inputs), (nothing, torch.zeros_like(inputs))):
                states = encoder(taken, output_hidden_states=True).hidden_states[-2]
                expected = reference(states)
                assert result.shape == expected.shape
                assert torch.allclose(result, expected, atol=1e-5)

    def test_pixels_match_diffusers(self):
        """Transformers' own processor enlarges with Pillow here, which rounds a few levels the other way."""
        from transformers import CLIPImageProcessorPil

        expected = torch.cat(
            [torch.from_numpy(CLIPImageProcessorPil()(images=p, return_tensors="np")["pixel_values"]) for p in IMAGES]
        )
        result = pixels(IMAGES)
        assert result.shape == (2, 3, 224, 224)
        level = 1 / 255 / 0.26
        assert (result - expected).abs().max() < 2.1 * level
        assert (result - expected).abs().mean() < 0.05 * level


class TestScope:
    def test_weights_and_windows_apply_per_step(self, sd1_parts: dict[str, Any], adapter: Any, encoder: Any):
        unet = sd1_parts["unet"]
        plain, half = predict(unet), predict(unet, prompt(adapter, encoder, IMAGES, weight=0.5))
        listed = prompt(adapter, encoder, IMAGES, weight=[0.0, 0.5], begin=0.0, end=0.5)
        results = [predict(unet, listed, index=index, count=4) for index in range(4)]
        assert torch.equal(results[0], plain)
        assert torch.equal(results[1], half)
        assert torch.equal(results[2], half), "the last weight goes on, up to the call where the window ends"
        assert torch.equal(results[3], plain)

    def test_blocks(self, sd1_parts: dict[str, Any], adapter: Any, encoder: Any):
        unet = sd1_parts["unet"]
        plain = predict(unet)
        assert torch.equal(predict(unet, prompt(adapter, encoder, IMAGES, blocks=["down_blocks.7"])), plain)
        whole, mid = (predict(unet, prompt(adapter, encoder, IMAGES, blocks=blocks)) for blocks in ((), ["mid_block"]))
        assert not torch.allclose(mid, plain, atol=1e-3)
        assert not torch.allclose(mid, whole, atol=1e-3)

    def test_negative_blocks_steer_the_negative_row_alone(self, sd1_parts: dict[str, Any], adapter: Any, encoder: Any):
        unet, everywhere = sd1_parts["unet"], ["down_blocks", "mid_block", "up_blocks"]
        plain, whole = predict(unet), predict(unet, prompt(adapter, encoder, IMAGES))
        opposed = predict(unet, prompt(adapter, encoder, IMAGES, negative_blocks=everywhere))
        assert torch.allclose(opposed[1], plain[1], atol=1e-6)
        assert not torch.allclose(opposed[0], plain[0], atol=1e-3)
        assert not torch.allclose(opposed[0], whole[0], atol=1e-3), "whole has the tokens of no image there"

    def test_masks_apply_at_each_unet_level(self, sd1_parts: dict[str, Any], adapter: Any, encoder: Any):
        unet = sd1_parts["unet"]
        plain, whole = predict(unet), predict(unet, prompt(adapter, encoder, IMAGES))
        left = torch.zeros(64, 64)
        left[:, :32] = 1
        masks = {"none": torch.zeros(64, 64), "all": torch.ones(64, 64), "left": left}
        results = {name: predict(unet, prompt(adapter, encoder, IMAGES, mask=mask)) for name, mask in masks.items()}
        assert torch.allclose(results["none"], plain, atol=1e-6)
        assert torch.allclose(results["all"], whole, atol=1e-6)
        assert not torch.allclose(results["left"], whole, atol=1e-3)
        assert not torch.allclose(results["left"], plain, atol=1e-3)

    def test_two_prompts_add_up(self, sd1_parts: dict[str, Any], adapter: Any, encoder: Any):
        unet = sd1_parts["unet"]
        half = prompt(adapter, encoder, IMAGES[:1], weight=0.5)
        twice = predict(unet, half, half)
        assert torch.allclose(twice, predict(unet, prompt(adapter, encoder, IMAGES[:1], weight=1.0)), atol=1e-5)

    def test_the_unet_is_restored_after_an_error(self, sd1_parts: dict[str, Any], adapter: Any, encoder: Any):
        unet = sd1_parts["unet"]
        before = dict(unet.attn_processors)
        some = prompt(adapter, encoder, IMAGES)
        with pytest.raises(ValueError, match="the IP-Adapter does not fit this model: it has no layer 1 for"):
            predict(unet, ImagePrompt({}, some.negative))
        assert unet.attn_processors == before


class TestFiles:
    def test_a_folder_with_nested_tensors(self, sd1_parts: dict[str, Any], adapter: Any, tmp_path: Path):
        flat = tensors(sd1_parts["unet"])
        nested: dict[str, dict[str, torch.Tensor]] = {"image_proj": {}, "ip_adapter": {}}
        for name, value in flat.items():
            part, _, rest = name.partition(".")
            nested[part][rest] = value
        (tmp_path / "folder").mkdir()
        torch.save(nested, tmp_path / "folder" / "ip_adapter.bin")
        loaded = ip_adapter.load(tmp_path / "folder", torch.float32)
        assert loaded.state_dict().keys() == adapter.state_dict().keys()
        for name, value in loaded.state_dict().items():
            assert torch.equal(value, adapter.state_dict()[name])

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"other.weight": torch.ones(1)}, "it has an unknown tensor other.weight"),
            ({"ip_adapter.1.to_x.weight": torch.ones(1)}, "it has an unknown tensor ip_adapter.1.to_x.weight"),
            ({"ip_adapter.99.to_k_ip.weight": torch.ones(1)}, "its layer 99 is incomplete"),
            (
                {"image_proj.norm.bias": torch.full((WIDTH,), torch.nan)},
                r"a\.safetensors is damaged: image_proj\.norm\.bias",
            ),
            ({"image_proj.norm.bias": None}, "its image projection is incomplete"),
            ({"image_proj.proj.weight": None}, "unknown kind of image projection"),
        ],
    )
    def test_invalid_files_are_refused(
        self, sd1_parts: dict[str, Any], tmp_path: Path, changes: dict[str, torch.Tensor | None], message: str
    ):
        changed = {n: v for n, v in {**tensors(sd1_parts["unet"]), **changes}.items() if v is not None}
        save_file(changed, tmp_path / "a.safetensors")
        with pytest.raises(ValueError, match=message):
            ip_adapter.load(tmp_path / "a.safetensors", torch.float32)

    def test_layers_of_other_widths_are_refused(self, sd1_parts: dict[str, Any], encoder: Any, tmp_path: Path):
        flat = tensors(sd1_parts["unet"])
        cases = {
            "its layer 1 needs tokens of width 5, but its image projection produces width 32": {
                "k": (8, 5),
                "v": (8, 5),
            },
            "its layer 1 is 8 wide, .* is [0-9]+; select one": {"k": (8, WIDTH), "v": (8, WIDTH)},
        }
        for message, shapes in cases.items():
            changes = {f"ip_adapter.1.to_{side}_ip.weight": torch.ones(shape) for side, shape in shapes.items()}
            save_file(flat | changes, tmp_path / "a.safetensors")
            broken = ip_adapter.load(tmp_path / "a.safetensors", torch.float32)
            with pytest.raises(ValueError, match=message):
                predict(sd1_parts["unet"], prompt(broken, encoder, IMAGES))

    def test_an_image_encoder_of_another_width_is_refused(self, adapter: Any):
        other = type("Encoder", (), {"dtype": torch.float32, "__call__": lambda _, x: SimpleNamespace(image_embeds=x)})
        with pytest.raises(ValueError, match="needs 24 values per image feature, but its image encoder has 224"):
            adapter.projection.tokens(other(), pixels(IMAGES))


class Models:
    """The context's models: the tiny one, an IP-Adapter and an image encoder."""

    def __init__(self, tiny: Any, folder: Path) -> None:
        self.tiny = tiny
        self.records = {
            "ip": self._record("ip", ModelType.IPAdapter, ModelFormat.Checkpoint, BaseModelType.StableDiffusion1),
            "xl": self._record("xl", ModelType.IPAdapter, ModelFormat.Checkpoint, BaseModelType.StableDiffusionXL),
            "vit": self._record("vit", ModelType.CLIPVision, ModelFormat.Diffusers, BaseModelType.Any),
        }
        self.records["vit"].name = "IP Adapter SD1.5 Image Encoder"
        self.paths = {"ip": folder / "ip.safetensors", "xl": folder / "ip.safetensors", "vit": folder / "vit"}

    @staticmethod
    def _record(key: str, kind: ModelType, form: ModelFormat, base: BaseModelType) -> SimpleNamespace:
        return SimpleNamespace(key=key, hash="blake3:0", name=key, type=kind, format=form, base=base)

    def field(self, key: str) -> ModelIdentifierField:
        record = self.records[key]
        return ModelIdentifierField(key=key, hash=record.hash, name=record.name, base=record.base, type=record.type)

    def exists(self, identifier: Any) -> bool:
        return identifier in self.records or self.tiny.exists(identifier)

    def get_config(self, identifier: Any) -> Any:
        key = getattr(identifier, "key", identifier)
        return self.records[key] if key in self.records else self.tiny.get_config(identifier)

    def search_by_attrs(self, name: Any = None, base: Any = None, type: Any = None) -> list[Any]:  # noqa: A002
        return [r for r in self.records.values() if (r.name, r.base, r.type) == (name, base, type)]

    def load(self, identifier: Any, submodel_type: Any = None) -> Any:
        if identifier.key not in self.records:
            return self.tiny.load(identifier, submodel_type)
        return loaders.load(self.tiny.cache, self.records[identifier.key], self.paths[identifier.key])


class TestNodes:
    @pytest.fixture
    def context(self, context: FakeContext, sd1_parts: dict[str, Any], encoder: Any, tmp_path: Path) -> FakeContext:
        save_file(tensors(sd1_parts["unet"]), tmp_path / "ip.safetensors")
        encoder.save_pretrained(tmp_path / "vit")
        context.models = Models(context.models, tmp_path)
        return context

    @pytest.fixture
    def make_node(self, context: FakeContext) -> Any:
        image = context.images.put(IMAGES[0])

        def make(**changes: Any) -> IPAdapterInvocation:
            return IPAdapterInvocation(
                **{"image": image, "ip_adapter_model": context.models.field("ip"), "weight": 0.8, **changes}
            )

        return make

    def test_images_change_the_result_and_leave_the_model_unmodified(
        self, context: FakeContext, make_node: Any, denoise_node: Any
    ):
        plain = latents_of(context, denoise_node().invoke(context))
        mask = torch.zeros(1, 48, 64, dtype=torch.bool)
        mask[..., :32] = True
        masked = make_node(mask=TensorField(tensor_name=context.tensors.save(mask)))
        fields = [node.invoke(context).ip_adapter for node in (make_node(), masked)]
        results = [latents_of(context, denoise_node(ip_adapter=field).invoke(context)) for field in fields]
        assert not torch.allclose(results[0], plain, atol=1e-3)
        assert not torch.allclose(results[0], results[1], atol=1e-3)
        assert torch.equal(latents_of(context, denoise_node().invoke(context)), plain)
        unit = fields[0].model_copy(update={"weight": 0.0})
        assert torch.allclose(latents_of(context, denoise_node(ip_adapter=[unit]).invoke(context)), plain, atol=1e-4)

    def test_sequential_guidance_gives_the_same_result(self, context: FakeContext, make_node: Any, denoise_node: Any):
        field = make_node(method="style_precise").invoke(context).ip_adapter
        results = []
        for sequential in (False, True):
            settings(context, sequential_guidance=sequential)
            results.append(latents_of(context, denoise_node(ip_adapter=field).invoke(context)))
        assert torch.allclose(results[0], results[1], atol=1e-4)

    def test_node_output_fields(self, context: FakeContext, make_node: Any):
        field = make_node(method="composition", begin_step_percent=0.25).invoke(context).ip_adapter
        assert field.image_encoder_model.key == "vit"
        assert field.target_blocks == ["down_blocks.2", "mid_block"]
        assert (field.weight, field.begin_step_percent, field.method) == (0.8, 0.25, "composition")
        other = make_node(ip_adapter_model=context.models.field("xl"), method="style").invoke(context).ip_adapter
        assert other.target_blocks == ["up_blocks.0.attentions.1"]

    def test_the_image_encoder_is_the_folders_own(self, context: FakeContext, make_node: Any):
        record = context.models.records["ip"]
        record.format, record.image_encoder_model_id = ModelFormat.InvokeAI, "InvokeAI/ip_adapter_sd_image_encoder"
        assert make_node(clip_vision_model="ViT-G").invoke(context).ip_adapter.image_encoder_model.key == "vit"
        record.image_encoder_model_id = "someone/some_encoder"
        with pytest.raises(ImageEncoderMissing, match="some_encoder is not installed: install one with this name"):
            make_node().invoke(context)

    def test_a_missing_image_encoder(self, context: FakeContext, make_node: Any):
        message = "ViT-G is not installed: install h94/IP-Adapter::sdxl_models/image_encoder in the model manager"
        with pytest.raises(ImageEncoderMissing, match=message):
            make_node(clip_vision_model="ViT-G").invoke(context)

    @pytest.mark.parametrize("changes", [{"weight": 3}, {"weight": []}, {"weight": [1.0, float("nan")]}])
    def test_weights_are_checked(self, make_node: Any, changes: dict[str, Any]):
        with pytest.raises(ValidationError, match="weights"):
            make_node(**changes)

    def test_denoising_refuses_invalid_adapters(self, context: FakeContext, make_node: Any, denoise_node: Any):
        field: IPAdapterField = make_node().invoke(context).ip_adapter
        two, flat = (context.tensors.save(torch.ones(*shape)) for shape in ((2, 8, 8), (8,)))
        for changes, message in (
            (
                {"ip_adapter_model": context.models.field("xl")},
                "xl is for sdxl models, but the UNet is from a sd-1 model",
            ),
            ({"method": "blend"}, "method 'blend'; use one of full, style"),
            ({"image": []}, "needs at least one image"),
            ({"mask": TensorField(tensor_name=two)}, r"must be \(1, height, width\), not \(2, 8, 8\)"),
            ({"mask": TensorField(tensor_name=flat)}, r"must be \(1, height, width\), not \(8,\)"),
        ):
            with pytest.raises(ValueError, match=message):
                denoise_node(ip_adapter=field.model_copy(update=changes)).invoke(context)
