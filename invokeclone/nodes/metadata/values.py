"""Nodes that read values from metadata, with a default for missing ones.

Two nodes per type, for one value and for several.
"""

from typing import Any, Literal

from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.invocation import BaseInvocation, BaseInvocationOutput
from invokeclone.graph.invocations.metadata import CUSTOM_LABEL, get_metadata_value, get_metadata_values
from invokeclone.graph.invocations.node_factory import make_node
from invokeclone.graph.invocations.outputs import (
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
from invokeclone.graph.vocabulary.fields import Input, InputField, UIType, WithMetadata
from invokeclone.graph.vocabulary.scheduler_names import SCHEDULER_NAME_VALUES
from invokeclone.graph.vocabulary.taxonomy import Classification

_TEXTS = Literal[
    "* CUSTOM LABEL *", "positive_prompt", "positive_style_prompt", "negative_prompt", "negative_style_prompt"
]
_INTEGERS = Literal[
    "* CUSTOM LABEL *",
    "width",
    "height",
    "seed",
    "steps",
    "clip_skip",
    "cfg_scale_start_step",
    "cfg_scale_end_step",
]
_FLOATS = Literal["* CUSTOM LABEL *", "cfg_scale", "cfg_rescale_multiplier", "guidance"]
_BOOLEANS = Literal["* CUSTOM LABEL *", "seamless_x", "seamless_y"]
_SCHEDULERS = Literal["* CUSTOM LABEL *", "scheduler"]


def _reader(
    kind: str,
    labels: Any,
    value: Any,
    output: type[BaseInvocationOutput],
    *,
    field: str = "value",
    label: str = CUSTOM_LABEL,
    version: str = "1.0.0",
    default: Any = None,
) -> type[BaseInvocation]:
    """Return the node that reads values of one kind.

    `field` is the output's name, `default` the declared default value.
    """
    several = kind.endswith("_collection")
    words = " ".join(word.capitalize() for word in kind.split("_"))

    def invoke(node: Any, _context: InvocationContext) -> BaseInvocationOutput:
        read = get_metadata_values if several else get_metadata_value
        return output(**{field: read(node.metadata, node.label, node.custom_label, node.default_value)})

    return make_node(
        f"MetadataTo{words.replace(' ', '')}Invocation",
        f"metadata_to_{kind}",
        f"Read {'values' if several else 'a value'} of this type from metadata: {words.lower()}.",
        {
            "label": (labels, InputField(default=label, description="The label to look for", input=Input.Direct)),
            "custom_label": (
                str | None,
                InputField(default=None, description="The label, if custom", input=Input.Direct),
            ),
            "default_value": (value, default or InputField(description="The value to use if the label is missing")),
        },
        invoke,
        output,
        module=__name__,
        mixins=(WithMetadata,),
        title=f"Metadata To {words}",
        tags=["metadata"],
        category="metadata",
        version=version,
        classification=Classification.Beta,
    )


MetadataToStringInvocation = _reader("string", _TEXTS, str, StringOutput)
MetadataToIntegerInvocation = _reader("integer", _INTEGERS, int, IntegerOutput)
MetadataToFloatInvocation = _reader("float", _FLOATS, float, FloatOutput, version="1.1.0")
MetadataToBoolInvocation = _reader("bool", _BOOLEANS, bool, BooleanOutput)
MetadataToSchedulerInvocation = _reader(
    "scheduler",
    _SCHEDULERS,
    SCHEDULER_NAME_VALUES,
    SchedulerOutput,
    field="scheduler",
    label="scheduler",
    version="1.0.1",
    default=InputField(
        default="euler", description="The value to use if the label is missing", ui_type=UIType.Scheduler
    ),
)
_SEVERAL = {"field": "collection"}
MetadataToStringCollectionInvocation = _reader(
    "string_collection", _TEXTS, list[str], StringCollectionOutput, **_SEVERAL
)
MetadataToIntegerCollectionInvocation = _reader(
    "integer_collection", _INTEGERS, list[int], IntegerCollectionOutput, **_SEVERAL
)
MetadataToFloatCollectionInvocation = _reader(
    "float_collection", _FLOATS, list[float], FloatCollectionOutput, **_SEVERAL
)
MetadataToBoolCollectionInvocation = _reader(
    "bool_collection", _BOOLEANS, list[bool], BooleanCollectionOutput, **_SEVERAL
)
