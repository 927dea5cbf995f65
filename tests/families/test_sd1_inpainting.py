"""An edit by the graph that a canvas makes: what a mask keeps is the old picture to the bit, what it does not is new."""

from typing import Any

import numpy as np
import pytest
from PIL import Image

from invokeclone.families.sd1.nodes.autoencoder import ImageToLatentsInvocation, LatentsToImageInvocation
from invokeclone.families.sd1.nodes.denoise import DenoiseLatentsInvocation
from invokeclone.families.sd1.nodes.latents import NoiseInvocation
from invokeclone.families.sd1.nodes.masks import CreateDenoiseMaskInvocation, CreateGradientMaskInvocation
from invokeclone.families.sd1.nodes.models import MainModelLoaderInvocation
from invokeclone.families.sd1.nodes.prompts import CompelInvocation
from invokeclone.graph.fields import DenoiseMaskField, ImageField
from invokeclone.graph.model_fields import ModelIdentifierField
from invokeclone.nodes.canvas import CanvasPasteBackInvocation, CanvasV2MaskAndCropInvocation
from invokeclone.nodes.image_compose import ApplyMaskToImageInvocation
from invokeclone.nodes.mask_images import ExpandMaskWithFadeInvocation

WIDTH, HEIGHT, EDGE = 128, 64, 32
REACH = 16
"""How far the border of the gradient mask and the fading reach, in pixels."""


class Edit:
    """A picture of which the left quarter is to change, and the model that changes it."""

    def __init__(self, context: Any, identifier: ModelIdentifierField) -> None:
        self.context = context
        self.model = MainModelLoaderInvocation(model=identifier).invoke(context)
        self.old = Image.linear_gradient("L").resize((WIDTH, HEIGHT)).convert("RGB")
        self.image = self.put(self.old)
        mask = Image.new("L", (WIDTH, HEIGHT), 255)
        mask.paste(0, (0, 0, EDGE, HEIGHT))
        self.mask = self.put(mask)

    def put(self, image: Image.Image) -> ImageField:
        return ImageField(image_name=self.context.images.save(image).image_name)

    def picture(self, field: ImageField, mode: str = "RGB") -> np.ndarray:
        return np.asarray(self.context.images.get_pil(field.image_name, mode=mode), dtype=int)

    def changed(self, denoise_mask: DenoiseMaskField) -> ImageField:
        """Return what the model makes of the picture."""
        context = self.context
        positive, negative = (
            CompelInvocation(prompt=prompt, clip=self.model.clip).invoke(context).conditioning for prompt in ("cat", "")
        )
        latents = ImageToLatentsInvocation(image=self.image, vae=self.model.vae).invoke(context).latents
        noise = NoiseInvocation(seed=1, width=WIDTH, height=HEIGHT).invoke(context).noise
        found = DenoiseLatentsInvocation(
            positive_conditioning=positive,
            negative_conditioning=negative,
            noise=noise,
            latents=latents,
            unet=self.model.unet,
            steps=4,
            denoising_start=0.2,
            denoise_mask=denoise_mask,
        ).invoke(context)
        return LatentsToImageInvocation(latents=found.latents, vae=self.model.vae).invoke(context).image


@pytest.fixture
def edit(context: Any, identifier: ModelIdentifierField) -> Edit:
    return Edit(context, identifier)


def test_pasted_back(edit: Edit) -> None:
    made = CreateDenoiseMaskInvocation(vae=edit.model.vae, mask=edit.mask).invoke(edit.context)
    new = edit.changed(made.denoise_mask)
    pasted = CanvasPasteBackInvocation(source_image=edit.image, target_image=new, mask=edit.mask).invoke(edit.context)
    old, found = edit.picture(edit.image), edit.picture(pasted.image)
    assert (found[:, EDGE:] == old[:, EDGE:]).all()
    assert (found[:, :EDGE] == edit.picture(new)[:, :EDGE]).all()
    assert np.abs(found - old)[:, :EDGE].mean() > 1


def test_soft_edges(edit: Edit) -> None:
    context = edit.context
    made = CreateGradientMaskInvocation(mask=edit.mask, edge_radius=REACH).invoke(context)
    new = edit.changed(made.denoise_mask)
    fading = ExpandMaskWithFadeInvocation(mask=made.expanded_mask_area, fade_size_px=REACH).invoke(context)
    cut = ApplyMaskToImageInvocation(image=new, mask=fading.image, invert_mask=True).invoke(context)
    alpha = edit.picture(cut.image, "RGBA")[HEIGHT // 2, :, 3]
    assert (alpha[:EDGE] == 255).all()
    assert (np.diff(alpha) <= 0).all()
    assert not alpha[EDGE + 2 * REACH :].any()
    assert len(set(alpha.tolist())) > REACH // 2
    over = CanvasV2MaskAndCropInvocation(source_image=edit.image, generated_image=new, mask=fading.image).invoke(
        context
    )
    old, found = edit.picture(edit.image), edit.picture(over.image)
    assert (found[:, EDGE + 2 * REACH :] == old[:, EDGE + 2 * REACH :]).all()
    assert (found[:, :EDGE] == edit.picture(new)[:, :EDGE]).all()
    assert np.abs(found - old)[:, :EDGE].mean() > 1


def test_a_mask_that_keeps_all(edit: Edit) -> None:
    white = edit.put(Image.new("L", (WIDTH, HEIGHT), 255))
    made = CreateGradientMaskInvocation(mask=white).invoke(edit.context)
    kept = edit.context.tensors.load(made.denoise_mask.mask_name)
    assert (kept == 1).all()
    new = edit.changed(made.denoise_mask)
    pasted = CanvasPasteBackInvocation(
        source_image=edit.image, target_image=new, mask=made.expanded_mask_area, mask_blur=8
    ).invoke(edit.context)
    assert (edit.picture(pasted.image) == edit.picture(edit.image)).all()
