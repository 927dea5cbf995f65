"""What a gradient model looks like on disk."""

from typing import Literal

from invokeclone.graph.taxonomy import BaseModelType
from invokeclone.models.configs import ModelConfig
from invokeclone.models.files import OnDisk
from invokeclone.models.kinds import Diffusers, StableDiffusionModel
from invokeclone.models.rules import Family, Rule, require


class Main_Diffusers_Gradient_Config(StableDiffusionModel, Diffusers, ModelConfig):
    """A gradient in a folder. A new base would be one word more in the taxonomy; the toy borrows `sd-3`."""

    base: Literal[BaseModelType.StableDiffusion3] = BaseModelType.StableDiffusion3


def _is_gradient(model: OnDisk) -> None:
    require(model.is_folder, "it is not a folder")
    require(model.class_name == "GradientPipeline", f"its class is {model.class_name}")


FAMILY = Family(
    rules=(
        Rule(
            config=Main_Diffusers_Gradient_Config,
            recognises=_is_gradient,
            base=lambda _: BaseModelType.StableDiffusion3,
            detects={
                "variant": lambda _: "normal",
                "prediction_type": lambda _: "epsilon",
                "repo_variant": lambda _: "",
            },
        ),
    )
)
