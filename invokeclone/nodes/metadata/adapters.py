"""Nodes that read ControlNets, IP-Adapters and T2I-Adapters from metadata, ready to apply."""

from typing import Any

from invokeclone.components.control.fields import (
    ControlField,
    ControlNetMetadataField,
    IPAdapterField,
    IPAdapterMetadataField,
    T2IAdapterField,
    T2IAdapterMetadataField,
)
from invokeclone.components.control.image_encoders import find_image_encoder
from invokeclone.graph.context import InvocationContext
from invokeclone.graph.invocations.inputs import as_list
from invokeclone.graph.invocations.invocation import BaseInvocation, BaseInvocationOutput, invocation, invocation_output
from invokeclone.graph.vocabulary.fields import Input, InputField, MetadataField, OutputField, WithMetadata
from invokeclone.graph.vocabulary.taxonomy import Classification


@invocation_output("md_control_list_output")
class MDControlListOutput(BaseInvocationOutput):
    """A list of ControlNets."""

    control_list: ControlField | list[ControlField] | None = OutputField(
        description="The ControlNets", title="ControlNet-List"
    )


@invocation_output("md_ip_adapter_list_output")
class MDIPAdapterListOutput(BaseInvocationOutput):
    """IP-Adapters."""

    ip_adapter_list: IPAdapterField | list[IPAdapterField] | None = OutputField(
        description="The IP-Adapters", title="IP-Adapter-List"
    )


@invocation_output("md_ip_adapters_output")
class MDT2IAdapterListOutput(BaseInvocationOutput):
    """T2I-Adapters."""

    t2i_adapter_list: T2IAdapterField | list[T2IAdapterField] | None = OutputField(
        description="The T2I-Adapters", title="T2I Adapter-List"
    )


def records(metadata: MetadataField | None, label: str) -> list[Any]:
    """Return the metadata records under a label."""
    return (metadata.root if metadata else {}).get(label) or []


@invocation(
    "metadata_to_controlnets",
    title="Metadata To ControlNets",
    tags=["metadata"],
    category="metadata",
    version="1.2.0",
    classification=Classification.Beta,
)
class MetadataToControlnetsInvocation(BaseInvocation, WithMetadata):
    """Read the ControlNets from metadata."""

    control_list: ControlField | list[ControlField] | None = InputField(
        default=None, description="ControlNets to add to those found", title="ControlNet-List", input=Input.Connection
    )

    def invoke(self, context: InvocationContext) -> MDControlListOutput:
        """Return all ControlNets."""
        controls = as_list(self.control_list)
        for record in records(self.metadata, "controlnets"):
            control = ControlNetMetadataField.model_validate(record)
            fields = control.model_dump(exclude={"processed_image"})
            fields["image"] = control.processed_image or control.image
            controls.append(ControlField.model_validate(fields))
        return MDControlListOutput(control_list=controls)


@invocation(
    "metadata_to_ip_adapters",
    title="Metadata To IP-Adapters",
    tags=["metadata"],
    category="metadata",
    version="1.2.0",
    classification=Classification.Beta,
)
class MetadataToIPAdaptersInvocation(BaseInvocation, WithMetadata):
    """Read the IP-Adapters from metadata."""

    ip_adapter_list: IPAdapterField | list[IPAdapterField] | None = InputField(
        default=None, description="IP-Adapters to add to those found", title="IP-Adapter-List", input=Input.Connection
    )

    def invoke(self, context: InvocationContext) -> MDIPAdapterListOutput:
        """Return all IP-Adapters."""
        adapters = as_list(self.ip_adapter_list)
        for record in records(self.metadata, "ipAdapters"):
            adapter = IPAdapterMetadataField.model_validate(record)
            fields = adapter.model_dump(exclude={"clip_vision_model"})
            encoder = find_image_encoder(context, adapter.clip_vision_model)
            adapters.append(IPAdapterField.model_validate({**fields, "image_encoder_model": encoder}))
        return MDIPAdapterListOutput(ip_adapter_list=adapters)


@invocation(
    "metadata_to_t2i_adapters",
    title="Metadata To T2I-Adapters",
    tags=["metadata"],
    category="metadata",
    version="1.2.0",
    classification=Classification.Beta,
)
class MetadataToT2IAdaptersInvocation(BaseInvocation, WithMetadata):
    """Read the T2I-Adapters from metadata."""

    t2i_adapter_list: T2IAdapterField | list[T2IAdapterField] | None = InputField(
        default=None, description="T2I-Adapters to add to those found", title="T2I-Adapter", input=Input.Connection
    )

    def invoke(self, context: InvocationContext) -> MDT2IAdapterListOutput:
        """Return all T2I-Adapters."""
        adapters = as_list(self.t2i_adapter_list)
        for record in records(self.metadata, "t2iAdapters"):
            adapter = T2IAdapterMetadataField.model_validate(record)
            fields = adapter.model_dump(exclude={"processed_image"})
            fields["image"] = adapter.processed_image or adapter.image
            adapters.append(T2IAdapterField.model_validate(fields))
        return MDT2IAdapterListOutput(t2i_adapter_list=adapters)
