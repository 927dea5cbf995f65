"""The nodes of ControlNets and T2I-Adapters, and the denoise node that applies them."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from invokeclone.families.stable_diffusion import t2i_adapter
from invokeclone.families.stable_diffusion.fields import ModelLoaderOutput
from invokeclone.families.stable_diffusion.nodes.controls import ControlNetInvocation, T2IAdapterInvocation
from invokeclone.graph.invocations.metadata import WrongModelType
from invokeclone.graph.vocabulary.fields import ImageField
from invokeclone.graph.vocabulary.model_fields import ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import BaseModelType, ModelFormat, ModelType
from invokeclone.nodes.latents.noise import NoiseInvocation
from tests.fakes_context import FakeContext
from tests.families.stable_diffusion.conftest import latents_of
from tests.families.stable_diffusion.test_controlnet import image_of, make_net
from tests.families.stable_diffusion.test_t2i_adapter import make_net as make_adapter

SD1, SD2 = BaseModelType.StableDiffusion1, BaseModelType.StableDiffusion2


@dataclass
class EntryCounter:
    """A loaded model that counts how often it is entered and left."""

    config: Any
    model: Any
    open: int = 0
    entered: int = 0

    def __enter__(self) -> Any:
        self.open += 1
        self.entered += 1
        return self.model

    def __exit__(self, *details: object) -> None:
        self.open -= 1


@dataclass
class ModelsWithControls:
    """The context's models: the tiny main model, and control models by their keys."""

    main: Any
    controls: dict[str, EntryCounter] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.main, name)

    def get_config(self, key: Any) -> Any:
        return self.controls[key].config if key in self.controls else self.main.get_config(key)

    def load(self, identifier: ModelIdentifierField, submodel_type: Any = None) -> Any:
        return self.controls.get(identifier.key) or self.main.load(identifier, submodel_type)

    def add(self, name: str, model: Any, kind: ModelType, base: BaseModelType = SD1) -> ModelIdentifierField:
        config = SimpleNamespace(key=name, name=name, base=base, type=kind, format=ModelFormat.Diffusers)
        self.controls[name] = EntryCounter(config, model)
        return ModelIdentifierField(key=name, hash="blake3:0", name=name, base=base, type=kind)


@pytest.fixture
def models(context: FakeContext, model: ModelLoaderOutput) -> ModelsWithControls:
    context.models = ModelsWithControls(context.models)
    return context.models


@pytest.fixture
def image(context: FakeContext) -> ImageField:
    return context.images.put(image_of(0))


def controlnet(context: FakeContext, identifier: ModelIdentifierField, image: ImageField, **inputs: Any) -> Any:
    return ControlNetInvocation(image=image, control_model=identifier, **inputs).invoke(context).control


def adapter(context: FakeContext, identifier: ModelIdentifierField, image: ImageField, **inputs: Any) -> Any:
    return T2IAdapterInvocation(image=image, t2i_adapter_model=identifier, **inputs).invoke(context).t2i_adapter


def test_nodes_pass_their_inputs_to_the_field(context: FakeContext, models: ModelsWithControls, image: ImageField):
    net = models.add("net", None, ModelType.ControlNet)
    inputs = {"begin_step_percent": 0.1, "end_step_percent": 0.7, "resize_mode": "fill_resize"}
    control = controlnet(context, net, image, control_weight=[0.5, -1], control_mode="unbalanced", **inputs)
    assert (control.image, control.control_model, control.control_weight) == (image, net, [0.5, -1])
    assert (control.control_mode, control.begin_step_percent, control.end_step_percent) == ("unbalanced", 0.1, 0.7)
    t2i = adapter(context, net, image, weight=1.5, **inputs)
    assert (t2i.image, t2i.t2i_adapter_model, t2i.weight, t2i.resize_mode) == (image, net, 1.5, "fill_resize")
    assert (t2i.begin_step_percent, t2i.end_step_percent) == (0.1, 0.7)
    assert models.controls["net"].entered == 0


def test_invalid_weights_and_windows_are_refused(context: FakeContext, models: ModelsWithControls, image: ImageField):
    net = models.add("net", None, ModelType.ControlNet)
    for weight in (2.1, [0.5, -1.5]):
        with pytest.raises(ValidationError, match="within -1 to 2"):
            ControlNetInvocation(image=image, control_model=net, control_weight=weight)
    with pytest.raises(ValidationError, match="at least 0"):
        T2IAdapterInvocation(image=image, t2i_adapter_model=net, weight=[1, -0.1])
    window = {"begin_step_percent": 0.6, "end_step_percent": 0.6}
    for cls, name in ((ControlNetInvocation, "control_model"), (T2IAdapterInvocation, "t2i_adapter_model")):
        with pytest.raises(ValidationError, match="must be less than"):  # when the graph is read, not when it runs
            cls(image=image, **{name: net}, **window)


def test_a_missing_image_is_an_error(context: FakeContext, models: ModelsWithControls):
    net = models.add("net", None, ModelType.ControlNet)
    for make in (controlnet, adapter):
        with pytest.raises(KeyError, match="gone"):
            make(context, net, ImageField(image_name="gone"))


def test_controls_steer_the_denoise_node_and_add_up(
    context: FakeContext, models: ModelsWithControls, image: ImageField, denoise_node: Any
):
    net = models.add("net", make_net(), ModelType.ControlNet)
    plain = latents_of(context, denoise_node().invoke(context))
    half = controlnet(context, net, image, control_weight=0.3)
    sum_of_halves = latents_of(context, denoise_node(control=[half, half]).invoke(context))
    whole = latents_of(
        context, denoise_node(control=controlnet(context, net, image, control_weight=0.6)).invoke(context)
    )
    assert torch.allclose(sum_of_halves, whole, atol=1e-3)
    assert not torch.allclose(plain, whole, atol=1e-2)
    assert models.controls["net"].entered == 3
    assert models.controls["net"].open == 0


def test_an_adapter_steers_the_denoise_node(
    context: FakeContext,
    models: ModelsWithControls,
    denoise_node: Any,
    image: ImageField,
    monkeypatch: pytest.MonkeyPatch,
):
    """The tiny UNet has the first block without attention, as XL's, so it takes an adapter of XL's kind."""
    monkeypatch.setattr(t2i_adapter, "STEPS", {SD1: 4})
    net = make_adapter(channels=[8, 16, 16, 16], downscale_factor=16, adapter_type="full_adapter_xl")
    field = adapter(context, models.add("t2i", net, ModelType.T2IAdapter), image)
    noise = NoiseInvocation(seed=3, width=64, height=64).invoke(context).noise
    plain = latents_of(context, denoise_node(noise=noise).invoke(context))
    steered = latents_of(context, denoise_node(noise=noise, t2i_adapter=[field]).invoke(context))
    assert not torch.allclose(plain, steered, atol=1e-2)
    assert (models.controls["t2i"].entered, models.controls["t2i"].open) == (1, 0)


def test_models_for_another_base(
    context: FakeContext, models: ModelsWithControls, image: ImageField, denoise_node: Any
):
    net = models.add("edges", make_net(), ModelType.ControlNet, base=SD2)
    with pytest.raises(ValueError, match=r"ControlNet edges is for sd-2, but .* sd-1: select a ControlNet for sd-1"):
        denoise_node(control=controlnet(context, net, image)).invoke(context)
    t2i = models.add("t2i", None, ModelType.T2IAdapter, base=SD2)
    with pytest.raises(ValueError, match=r"T2I-Adapter t2i is for sd-2, but .* sd-1"):
        denoise_node(t2i_adapter=adapter(context, t2i, image)).invoke(context)
    assert models.controls["edges"].entered == models.controls["t2i"].entered == 0


def broken(*_inputs: Any, **_named: Any) -> Any:
    message = "the device is gone"
    raise RuntimeError(message)


def test_a_net_for_another_unet(context: FakeContext, models: ModelsWithControls, image: ImageField, denoise_node: Any):
    net = models.add("net", make_net(0, cross_attention_dim=16), ModelType.ControlNet)
    with pytest.raises(ValueError, match=r"The ControlNet net was made for another UNet .* select a ControlNet"):
        denoise_node(control=controlnet(context, net, image)).invoke(context)
    assert models.controls["net"].open == 0


def test_models_of_another_type(context: FakeContext, models: ModelsWithControls, image: ImageField, denoise_node: Any):
    net, edges = models.add("net", None, ModelType.ControlNet), models.add("edges", None, ModelType.T2IAdapter)
    with pytest.raises(WrongModelType, match="edges is a model of type t2i_adapter: select one of type controlnet"):
        denoise_node(control=controlnet(context, edges, image)).invoke(context)
    with pytest.raises(WrongModelType, match="net is a model of type controlnet: select one of type t2i_adapter"):
        denoise_node(t2i_adapter=adapter(context, net, image)).invoke(context)


def test_the_net_is_released_when_the_run_fails(
    context: FakeContext, models: ModelsWithControls, image: ImageField, denoise_node: Any
):
    net = models.add("net", make_net(0), ModelType.ControlNet)
    models.controls["net"].model.forward = broken
    with pytest.raises(RuntimeError, match="device is gone"):
        denoise_node(control=controlnet(context, net, image)).invoke(context)
    assert (models.controls["net"].entered, models.controls["net"].open) == (1, 0)
