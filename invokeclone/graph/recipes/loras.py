"""The nodes that apply LoRAs to the parts of a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from invokeclone.graph.builder import GraphBuilder, NodeOutput
from invokeclone.graph.recipes.runs import ModelParts
from invokeclone.graph.recipes.settings import AppliedLoRA


@dataclass(frozen=True)
class LoRANode:
    """A type of node that applies a list of LoRAs. Its inputs and outputs are the denoiser and the text encoders."""

    type: str
    denoiser: str
    encoders: Sequence[str]

    def apply(self, builder: GraphBuilder, name: str, parts: ModelParts, loras: Sequence[AppliedLoRA]) -> ModelParts:
        """Apply LoRAs with one node, or two if the text encoders have different weights.

        Text encoders that the parts lack are left out.
        """
        if not loras:
            return parts
        encoders = {encoder: output for encoder, output in parts.text_encoders.items() if encoder in self.encoders}
        weights = [lora.weight for lora in loras]
        text_weights = [lora.encoder_weight for lora in loras]
        if not encoders or weights == text_weights:
            node = self._add(builder, name, loras, weights, {self.denoiser: parts.denoiser, **encoders})
            text_node = node
        else:
            node = self._add(builder, name, loras, weights, {self.denoiser: parts.denoiser})
            text_node = self._add(builder, f"{name}_text", loras, text_weights, encoders)
        patched = {encoder: NodeOutput(text_node, encoder) for encoder in encoders}
        return replace(
            parts, denoiser=NodeOutput(node, self.denoiser), text_encoders={**parts.text_encoders, **patched}
        )

    def _add(
        self,
        builder: GraphBuilder,
        name: str,
        loras: Sequence[AppliedLoRA],
        weights: Sequence[float],
        inputs: Mapping[str, NodeOutput],
    ) -> str:
        listed = [{"lora": dict(lora.model), "weight": weight} for lora, weight in zip(loras, weights, strict=True)]
        return builder.node(name, self.type, loras=listed, **inputs)
