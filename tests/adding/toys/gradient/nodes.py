"""The gradient's one node."""

from PIL import Image

from invokeclone.graph.context import InvocationContext
from invokeclone.graph.fields import InputField, WithBoard, WithMetadata
from invokeclone.graph.invocation import BaseInvocation, invocation
from invokeclone.graph.model_fields import ModelIdentifierField
from invokeclone.graph.outputs import ImageOutput


@invocation("gradient_paint", title="Paint Gradient", tags=["toy"], category="toy", version="1.0.0")
class GradientPaintInvocation(BaseInvocation, WithMetadata, WithBoard):
    """Paint from black to the model's colour."""

    model: ModelIdentifierField = InputField(description="The gradient model.")
    width: int = InputField(default=64, gt=0, description="Width, in pixels.")

    def invoke(self, context: InvocationContext) -> ImageOutput:
        with context.models.load(self.model) as colour:
            strip = Image.linear_gradient("L").rotate(90).resize((self.width, 16))
            image = Image.merge("RGB", [strip.point(lambda value, top=top: value * top // 255) for top in colour])
        return ImageOutput.build(context.images.save(image))
