"""Base classes of the nodes that add LoRAs to the fields of a model's parts. A family's nodes add the inputs of its parts.

A node lists the class with its parts first: `class Node(Parts, ApplyLoRA)`.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

from invokeclone.components.denoisers.lora_fields import with_loras
from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.inputs import as_list
from invokeclone.graph.invocations.invocation import BaseInvocation, BaseInvocationOutput
from invokeclone.graph.vocabulary.fields import FieldDescriptions, Input, InputField
from invokeclone.graph.vocabulary.model_fields import LoRAField, ModelIdentifierField
from invokeclone.graph.vocabulary.taxonomy import ModelType

Output = TypeVar("Output", bound=BaseInvocationOutput)


def lora_input(base: Any) -> Any:
    """Declare the input of a LoRA for models of a base, or of one of several."""
    return InputField(
        description=FieldDescriptions.lora_model, title="LoRA", ui_model_base=base, ui_model_type=ModelType.LoRA
    )


def lora_list_input(base: Any) -> Any:
    """Declare the input of LoRAs for models of a base, or of one of several."""
    return InputField(
        default=None,
        description=FieldDescriptions.lora_collection,
        title="LoRAs",
        ui_model_base=base,
        ui_model_type=ModelType.LoRA,
    )


def part_input(description: str, title: str) -> Any:
    """Declare the optional input of a model's part."""
    return InputField(default=None, description=description, input=Input.Connection, title=title)


class ApplyLoRA(BaseInvocation):
    """Add a LoRA to the parts of a model. A family's node is a subclass with a type."""

    lora: ModelIdentifierField = lora_input(None)
    weight: float = InputField(default=0.75, description=FieldDescriptions.lora_weight)

    def add_lora(self, context: InvocationContext, output: type[Output]) -> Output:
        """Return the output with the LoRA added to each of its parts. Raises the errors of `with_loras`."""
        return _add(context, self, [LoRAField(lora=self.lora, weight=self.weight)], output)


class ApplyLoRAs(BaseInvocation):
    """Add several LoRAs to the parts of a model. A family's node is a subclass with a type."""

    loras: LoRAField | list[LoRAField] | None = lora_list_input(None)

    def add_loras(self, context: InvocationContext, output: type[Output]) -> Output:
        """Return the output with the LoRAs added to each of its parts. Raises the errors of `with_loras`."""
        return _add(context, self, as_list(self.loras), output)


def _add(context: InvocationContext, node: Any, loras: Sequence[LoRAField], output: type[Output]) -> Output:
    """Return the output whose fields are the node's inputs of the same names, with LoRAs."""
    names = [name for name in output.model_fields if name not in BaseInvocationOutput.model_fields and name != "type"]
    return output(**{name: with_loras(context, getattr(node, name), loras) for name in names})
