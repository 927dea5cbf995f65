"""The node that fills holes with LaMa."""

from PIL import Image

from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, invocation
from invokeclone.graph.invocations.outputs import ImageOutput
from invokeclone.graph.vocabulary.fields import ImageField, InputField, WithBoard, WithMetadata
from invokeclone.kit.files.image_modes import convert

OPAQUE = 255


@invocation("infill_lama", title="LaMa Infill", tags=["image", "inpaint"], category="inpaint", version="1.2.2")
class LaMaInfillInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Fill transparent areas with LaMa, whose weights are downloaded at the first use."""

    image: ImageField = InputField(description="The image to fill")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        """Fill and save the image; one without a hole, or without an opaque pixel, is unchanged."""
        from invokeclone.components.infill import lama
        from invokeclone.engine.loaded import device_of

        image = context.images.get_pil(self.image.image_name, mode="RGBA")
        opaque = image.getchannel("A").histogram()[OPAQUE]
        if opaque in (0, image.width * image.height):
            if not opaque:
                context.logger.warning("Infill skipped: the image has no opaque pixel")
            return ImageOutput.build(context.images.save(image))
        loaded = context.models.load_remote_model(lama.SOURCE, lama.load)
        context.util.signal_progress("Filling with LaMa")
        with loaded.model_on_device(lama.working_memory(image)) as (_, network):
            ground = lama.fill(network, image, device_of(loaded, network))
        return ImageOutput.build(context.images.save(Image.alpha_composite(convert(ground, "RGBA"), image)))
