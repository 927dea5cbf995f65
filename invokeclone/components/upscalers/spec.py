"""Record classes and identification rules of image-to-image models. Does not import torch."""

from typing import Literal

from invokeclone.graph.vocabulary.taxonomy import ModelType
from invokeclone.models.configs.kinds import OfAnyBase, PlainCheckpoint
from invokeclone.models.files.model_files import ModelFiles
from invokeclone.models.identify.rules import Family, Rule, require


class Spandrel_Checkpoint_Config(PlainCheckpoint, OfAnyBase):
    """A model of any architecture that spandrel can load."""

    type: Literal[ModelType.SpandrelImageToImage] = ModelType.SpandrelImageToImage


_FILES = (".pth", ".pt", ".ckpt", ".safetensors", ".bin")
_SIGNATURES: tuple[tuple[str, ...], ...] = (
    ("model.0.weight", "model.1.sub.0.RDB1.conv1.0.weight"),  # ESRGAN, Real-ESRGAN as first published
    ("conv_first.weight", "body.0.rdb1.conv1.weight"),  # Real-ESRGAN
    ("conv_first.weight", "RRDB_trunk.0.RDB1.conv1.weight"),  # ESRGAN
    ("body.0.weight", "body.1.weight", "body.2.weight"),  # SRVGGNet, "compact"
    ("conv_first.weight", "layers.0.residual_group.blocks.0.norm1.weight"),  # SwinIR, HAT, Swin2SR
    ("conv_first.weight", "layers.0.blocks.0.norm1.weight"),  # DAT
    ("conv_1.sk.weight", "block_1.c1_r.sk.weight"),  # SPAN
    ("residual_layer.0.residual_layer.0.layer.0.fn.0.weight", "input.weight"),  # OmniSR
    ("patch_embed.proj.weight", "encoder_level1.0.norm1.body.weight"),  # Restormer
    ("intro.weight", "ending.weight", "encoders.0.0.conv1.weight"),  # NAFNet
)
"""Tensors that identify architectures that spandrel can load.

Spandrel itself needs torch, which the server never imports.
"""


def _is_image_to_image(model: ModelFiles) -> None:
    require(not model.is_folder and model.path.suffix.lower() in _FILES, "it is not a file of weights")
    names = model.without_prefixes("module.")
    require(any(all(name in names for name in signature) for signature in _SIGNATURES), "its architecture is unknown")


FAMILY = Family(rules=(Rule(Spandrel_Checkpoint_Config, _is_image_to_image),))
