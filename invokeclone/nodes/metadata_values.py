"""Single values out of metadata, or a default where there is none."""

from typing import Any, Literal

from invokeclone.graph.context import InvocationContext
from invokeclone.graph.fields import Input, InputField, MetadataField, UIType, WithMetadata
from invokeclone.graph.invocation import BaseInvocation, invocation
from invokeclone.graph.outputs import (
    BooleanCollectionOutput,
    BooleanOutput,
    FloatCollectionOutput,
    FloatOutput,
    IntegerCollectionOutput,
    IntegerOutput,
    SchedulerOutput,
    StringCollectionOutput,
    StringOutput,
)
from invokeclone.graph.scheduler_names import SCHEDULER_NAME_VALUES
from invokeclone.graph.taxonomy import Classification
from invokeclone.nodes.metadata import CUSTOM_LABEL


def find(metadata: MetadataField | None, label: str, custom_label: str | None, default: Any) -> Any:
    """Return the value under a label, or the default."""
    known = metadata.root if metadata else {}
    return known.get(str(custom_label if label == CUSTOM_LABEL else label), default)


def find_all(metadata: MetadataField | None, label: str, custom_label: str | None, default: list[Any]) -> list[Any]:
    """Return the values under a label, a single one as a list, or the default."""
    found = find(metadata, label, custom_label, default)
    return found if isinstance(found, list) else [found]


@invocation(
    "metadata_to_string",
    title="Metadata To String",
    tags=["metadata"],
    category="metadata",
    version="1.0.0",
    classification=Classification.Beta,
)
class MetadataToStringInvocation(BaseInvocation, WithMetadata):
    """Read a string from metadata."""

    label: Literal[
        "* CUSTOM LABEL *", "positive_prompt", "positive_style_prompt", "negative_prompt", "negative_style_prompt"
    ] = InputField(default="* CUSTOM LABEL *", description="The label to look for", input=Input.Direct)
    custom_label: str | None = InputField(
        default=None, description="The label, when it is a custom one", input=Input.Direct
    )
    default_value: str = InputField(description="The value when there is none of that label")

    def invoke(self, context: InvocationContext) -> StringOutput:
        """Give out the value."""
        return StringOutput(value=find(self.metadata, self.label, self.custom_label, self.default_value))


@invocation(
    "metadata_to_integer",
    title="Metadata To Integer",
    tags=["metadata"],
    category="metadata",
    version="1.0.0",
    classification=Classification.Beta,
)
class MetadataToIntegerInvocation(BaseInvocation, WithMetadata):
    """Read an integer from metadata."""

    label: Literal[
        "* CUSTOM LABEL *",
        "width",
        "height",
        "seed",
        "steps",
        "clip_skip",
        "cfg_scale_start_step",
        "cfg_scale_end_step",
    ] = InputField(default="* CUSTOM LABEL *", description="The label to look for", input=Input.Direct)
    custom_label: str | None = InputField(
        default=None, description="The label, when it is a custom one", input=Input.Direct
    )
    default_value: int = InputField(description="The value when there is none of that label")

    def invoke(self, context: InvocationContext) -> IntegerOutput:
        """Give out the value."""
        return IntegerOutput(value=find(self.metadata, self.label, self.custom_label, self.default_value))


@invocation(
    "metadata_to_float",
    title="Metadata To Float",
    tags=["metadata"],
    category="metadata",
    version="1.1.0",
    classification=Classification.Beta,
)
class MetadataToFloatInvocation(BaseInvocation, WithMetadata):
    """Read a float from metadata."""

    label: Literal["* CUSTOM LABEL *", "cfg_scale", "cfg_rescale_multiplier", "guidance"] = InputField(
        default="* CUSTOM LABEL *", description="The label to look for", input=Input.Direct
    )
    custom_label: str | None = InputField(
        default=None, description="The label, when it is a custom one", input=Input.Direct
    )
    default_value: float = InputField(description="The value when there is none of that label")

    def invoke(self, context: InvocationContext) -> FloatOutput:
        """Give out the value."""
        return FloatOutput(value=find(self.metadata, self.label, self.custom_label, self.default_value))


@invocation(
    "metadata_to_bool",
    title="Metadata To Bool",
    tags=["metadata"],
    category="metadata",
    version="1.0.0",
    classification=Classification.Beta,
)
class MetadataToBoolInvocation(BaseInvocation, WithMetadata):
    """Read a boolean from metadata."""

    label: Literal["* CUSTOM LABEL *", "seamless_x", "seamless_y"] = InputField(
        default="* CUSTOM LABEL *", description="The label to look for", input=Input.Direct
    )
    custom_label: str | None = InputField(
        default=None, description="The label, when it is a custom one", input=Input.Direct
    )
    default_value: bool = InputField(description="The value when there is none of that label")

    def invoke(self, context: InvocationContext) -> BooleanOutput:
        """Give out the value."""
        return BooleanOutput(value=find(self.metadata, self.label, self.custom_label, self.default_value))


@invocation(
    "metadata_to_scheduler",
    title="Metadata To Scheduler",
    tags=["metadata"],
    category="metadata",
    version="1.0.1",
    classification=Classification.Beta,
)
class MetadataToSchedulerInvocation(BaseInvocation, WithMetadata):
    """Read the scheduler from metadata."""

    label: Literal["* CUSTOM LABEL *", "scheduler"] = InputField(
        default="scheduler", description="The label to look for", input=Input.Direct
    )
    custom_label: str | None = InputField(
        default=None, description="The label, when it is a custom one", input=Input.Direct
    )
    default_value: SCHEDULER_NAME_VALUES = InputField(
        default="euler", description="The value when there is none of that label", ui_type=UIType.Scheduler
    )

    def invoke(self, context: InvocationContext) -> SchedulerOutput:
        """Give out its name."""
        return SchedulerOutput(scheduler=find(self.metadata, self.label, self.custom_label, self.default_value))


@invocation(
    "metadata_to_string_collection",
    title="Metadata To String Collection",
    tags=["metadata"],
    category="metadata",
    version="1.0.0",
    classification=Classification.Beta,
)
class MetadataToStringCollectionInvocation(BaseInvocation, WithMetadata):
    """Read strings from metadata."""

    label: Literal[
        "* CUSTOM LABEL *", "positive_prompt", "positive_style_prompt", "negative_prompt", "negative_style_prompt"
    ] = InputField(default="* CUSTOM LABEL *", description="The label to look for", input=Input.Direct)
    custom_label: str | None = InputField(
        default=None, description="The label, when it is a custom one", input=Input.Direct
    )
    default_value: list[str] = InputField(description="The value when there is none of that label")

    def invoke(self, context: InvocationContext) -> StringCollectionOutput:
        """Give out the values."""
        values = find_all(self.metadata, self.label, self.custom_label, self.default_value)
        return StringCollectionOutput(collection=values)


@invocation(
    "metadata_to_integer_collection",
    title="Metadata To Integer Collection",
    tags=["metadata"],
    category="metadata",
    version="1.0.0",
    classification=Classification.Beta,
)
class MetadataToIntegerCollectionInvocation(BaseInvocation, WithMetadata):
    """Read integers from metadata."""

    label: Literal[
        "* CUSTOM LABEL *",
        "width",
        "height",
        "seed",
        "steps",
        "clip_skip",
        "cfg_scale_start_step",
        "cfg_scale_end_step",
    ] = InputField(default="* CUSTOM LABEL *", description="The label to look for", input=Input.Direct)
    custom_label: str | None = InputField(
        default=None, description="The label, when it is a custom one", input=Input.Direct
    )
    default_value: list[int] = InputField(description="The value when there is none of that label")

    def invoke(self, context: InvocationContext) -> IntegerCollectionOutput:
        """Give out the values."""
        values = find_all(self.metadata, self.label, self.custom_label, self.default_value)
        return IntegerCollectionOutput(collection=values)


@invocation(
    "metadata_to_float_collection",
    title="Metadata To Float Collection",
    tags=["metadata"],
    category="metadata",
    version="1.0.0",
    classification=Classification.Beta,
)
class MetadataToFloatCollectionInvocation(BaseInvocation, WithMetadata):
    """Read floats from metadata."""

    label: Literal["* CUSTOM LABEL *", "cfg_scale", "cfg_rescale_multiplier", "guidance"] = InputField(
        default="* CUSTOM LABEL *", description="The label to look for", input=Input.Direct
    )
    custom_label: str | None = InputField(
        default=None, description="The label, when it is a custom one", input=Input.Direct
    )
    default_value: list[float] = InputField(description="The value when there is none of that label")

    def invoke(self, context: InvocationContext) -> FloatCollectionOutput:
        """Give out the values."""
        values = find_all(self.metadata, self.label, self.custom_label, self.default_value)
        return FloatCollectionOutput(collection=values)


@invocation(
    "metadata_to_bool_collection",
    title="Metadata To Bool Collection",
    tags=["metadata"],
    category="metadata",
    version="1.0.0",
    classification=Classification.Beta,
)
class MetadataToBoolCollectionInvocation(BaseInvocation, WithMetadata):
    """Read booleans from metadata."""

    label: Literal["* CUSTOM LABEL *", "seamless_x", "seamless_y"] = InputField(
        default="* CUSTOM LABEL *", description="The label to look for", input=Input.Direct
    )
    custom_label: str | None = InputField(
        default=None, description="The label, when it is a custom one", input=Input.Direct
    )
    default_value: list[bool] = InputField(description="The value when there is none of that label")

    def invoke(self, context: InvocationContext) -> BooleanCollectionOutput:
        """Give out the values."""
        values = find_all(self.metadata, self.label, self.custom_label, self.default_value)
        return BooleanCollectionOutput(collection=values)
