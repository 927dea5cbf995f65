"""An edit by the graph that a canvas makes: under the white of a mask the image stays to the bit, the rest is new."""

import numpy as np
import pytest
from PIL import Image

from invokeclone.families.stable_diffusion.nodes.autoencoder import ImageToLatentsInvocation, LatentsToImageInvocation
from invokeclone.families.stable_diffusion.nodes.denoise import DenoiseLatentsInvocation
from invokeclone.families.stable_diffusion.nodes.masks import CreateDenoiseMaskInvocation, CreateGradientMaskInvocation
from invokeclone.families.stable_diffusion.nodes.models import MainModelLoaderInvocation
from invokeclone.families.stable_diffusion.nodes.prompts import CompelInvocation
from invokeclone.graph.vocabulary.fields import DenoiseMaskField, ImageField
from invokeclone.graph.vocabulary.model_fields import ModelIdentifierField
from invokeclone.nodes.images.canvas import CanvasPasteBackInvocation, CanvasV2MaskAndCropInvocation
from invokeclone.nodes.images.compose import ApplyMaskToImageInvocation
from invokeclone.nodes.latents.noise import NoiseInvocation
from invokeclone.nodes.masks.images import ExpandMaskWithFadeInvocation
from tests.fakes_context import FakeContext

WIDTH, HEIGHT, EDGE = 128, 64, 32
REACH = 16
"""How far the border of the gradient mask and the fading reach, in pixels."""
OUTSIDE = EDGE + 8 + 2 * REACH
"""From where on nothing changes: reducing the mask to latents makes the first one beyond its edge gray."""


class Edit:
    """An image of which the left quarter is to change, and the model that changes it."""

    def __init__(self, context: FakeContext, identifier: ModelIdentifierField) -> None:
        self.context = context
        self.model = MainModelLoaderInvocation(model=identifier).invoke(context)
        self.old = Image.linear_gradient("L").resize((WIDTH, HEIGHT)).convert("RGB")
        self.image = self.save_image(self.old)
        mask = Image.new("L", (WIDTH, HEIGHT), 255)
        mask.paste(0, (0, 0, EDGE, HEIGHT))
        self.mask = self.save_image(mask)

    def save_image(self, image: Image.Image) -> ImageField:
        return self.context.images.put(image)

    def pixels(self, field: ImageField, mode: str = "RGB") -> np.ndarray:
        return np.asarray(self.context.images.get_pil(field.image_name, mode=mode), dtype=int)

    def run_model(self, denoise_mask: DenoiseMaskField) -> ImageField:
        """Return the model's result."""
        context = self.context
        positive, negative = (
            CompelInvocation(prompt=prompt, clip=self.model.clip).invoke(context).conditioning for prompt in ("cat", "")
        )
        latents = ImageToLatentsInvocation(image=self.image, vae=self.model.vae).invoke(context).latents
        noise = NoiseInvocation(seed=1, width=WIDTH, height=HEIGHT).invoke(context).noise
        output = DenoiseLatentsInvocation(
            positive_conditioning=positive,
            negative_conditioning=negative,
            noise=noise,
            latents=latents,
            unet=self.model.unet,
            steps=4,
            denoising_start=0.2,
            denoise_mask=denoise_mask,
        ).invoke(context)
        return LatentsToImageInvocation(latents=output.latents, vae=self.model.vae).invoke(context).image


@pytest.fixture
def edit(node_context: FakeContext, sd1_identifier: ModelIdentifierField) -> Edit:
    return Edit(node_context, sd1_identifier)


def test_paste_back_changes_only_the_masked_area(edit: Edit) -> None:
    mask_output = CreateDenoiseMaskInvocation(vae=edit.model.vae, mask=edit.mask).invoke(edit.context)
    new = edit.run_model(mask_output.denoise_mask)
    pasted = CanvasPasteBackInvocation(source_image=edit.image, target_image=new, mask=edit.mask).invoke(edit.context)
    old, result = edit.pixels(edit.image), edit.pixels(pasted.image)
    assert (result[:, EDGE:] == old[:, EDGE:]).all()
    assert (result[:, :EDGE] == edit.pixels(new)[:, :EDGE]).all()
    assert np.abs(result - old)[:, :EDGE].mean() > 1


def test_soft_edges(edit: Edit) -> None:
    context = edit.context
    mask_output = CreateGradientMaskInvocation(mask=edit.mask, edge_radius=REACH).invoke(context)
    new = edit.run_model(mask_output.denoise_mask)
    fading = ExpandMaskWithFadeInvocation(mask=mask_output.expanded_mask_area, fade_size_px=REACH).invoke(context)
    cut = ApplyMaskToImageInvocation(image=new, mask=fading.image, invert_mask=True).invoke(context)
    alpha = edit.pixels(cut.image, "RGBA")[HEIGHT // 2, :, 3]
    assert (alpha[:EDGE] == 255).all()
    assert (np.diff(alpha) <= 0).all()
    assert not alpha[OUTSIDE:].any()
    assert len(set(alpha.tolist())) > REACH // 2
    over = CanvasV2MaskAndCropInvocation(source_image=edit.image, generated_image=new, mask=fading.image).invoke(
        context
    )
    old, result = edit.pixels(edit.image), edit.pixels(over.image)
    assert (result[:, OUTSIDE:] == old[:, OUTSIDE:]).all()
    assert (result[:, :EDGE] == edit.pixels(new)[:, :EDGE]).all()
    assert np.abs(result - old)[:, :EDGE].mean() > 1


def test_a_white_mask_changes_nothing(edit: Edit) -> None:
    white = edit.save_image(Image.new("L", (WIDTH, HEIGHT), 255))
    mask_output = CreateGradientMaskInvocation(mask=white).invoke(edit.context)
    mask_values = edit.context.tensors.load(mask_output.denoise_mask.mask_name)
    assert (mask_values == 1).all()
    new = edit.run_model(mask_output.denoise_mask)
    pasted = CanvasPasteBackInvocation(
        source_image=edit.image, target_image=new, mask=mask_output.expanded_mask_area, mask_blur=8
    ).invoke(edit.context)
    assert (edit.pixels(pasted.image) == edit.pixels(edit.image)).all()
