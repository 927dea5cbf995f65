"""Denoiser adapter of FLUX.1's transformer: from latents, time and prompt to the predicted velocity."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from invokeclone.components.flux.tokens import PACKING, pack, unpack
from invokeclone.engine.block_cache import guidance_side
from invokeclone.engine.denoise import OnStep
from invokeclone.families.flux.conditioning import FluxConditioning
from invokeclone.families.flux.tokens import positions, rotary_table
from invokeclone.graph.context import PipelineIntermediateState

_TIME_SCALE = 1000.0


@dataclass
class FluxCall:
    """The inputs of one call of the transformer. Controls add residuals to it."""

    tokens: torch.Tensor
    """Image tokens (batch, tokens, channels) of the latents alone, without added channels and references."""
    time: torch.Tensor
    """The noise level (batch), in 0..1."""
    guidance: torch.Tensor | None
    conditioning: FluxConditioning
    index: int
    """Index of the loop's step, from 0."""
    count: int
    """Number of steps of the run."""
    positions: torch.Tensor
    """Positions of the image tokens (tokens, 3)."""
    double: list[torch.Tensor] = field(default_factory=list)
    """What is added to the image tokens after each double block; empty for nothing."""
    single: list[torch.Tensor] = field(default_factory=list)
    """What is added to the image tokens after each single block; empty for nothing."""

    def add_residuals(self, double: Sequence[torch.Tensor], single: Sequence[torch.Tensor]) -> None:
        """Add residuals, one for each block of a kind or none."""
        self.double = _sum(self.double, double)
        self.single = _sum(self.single, single)


def _sum(first: Sequence[torch.Tensor], second: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    if not first or not second:
        return list(first or second)
    return [a + b for a, b in zip(first, second, strict=True)]


class FluxControl(Protocol):
    """A ControlNet with its image, which adds to the residuals of a call."""

    def __call__(self, call: FluxCall) -> None:
        """Add residuals to the call."""


class FluxImageAttention(Protocol):
    """An IP-Adapter with its image."""

    def term(self, block: int, query: torch.Tensor, call: FluxCall) -> torch.Tensor | None:
        """Return what is added to the image tokens after a double block, before the controls' residuals.

        `query` (batch, tokens, heads, head width) is that of the block's image tokens, after its norm and before the
        rotary embedding.
        """


class PositionScaling(Protocol):
    """Dynamic extrapolation of positions."""

    def stretch(self, level: float) -> float:
        """Return the logarithm of the enlargement of the rotary base at a noise level; 0 for none."""


@dataclass
class Reference:
    """Tokens (1, tokens, channels) of a reference image, with their positions (tokens, 3)."""

    tokens: torch.Tensor
    positions: torch.Tensor


@dataclass
class FluxDenoiser:
    """Predicts with a diffusers FluxTransformer2DModel, whose blocks it calls itself."""

    transformer: Any
    guidance: float
    count: int
    """Number of steps of the run."""
    steps: Sequence[int] = ()
    """The step of each call, for solvers that call the model several times per step."""
    added: torch.Tensor | None = None
    """Tokens (1, tokens, channels) concatenated to the image tokens along the channels."""
    references: Sequence[Reference] = ()
    controls: Sequence[FluxControl] = ()
    image_prompts: Sequence[FluxImageAttention] = ()
    scaling: PositionScaling | None = None
    index: int = 0
    """Index of the loop's call, from 0."""
    _table: tuple[Any, Any] | None = field(default=None, init=False)

    def counting(self, on_step: OnStep) -> OnStep:
        """Return an `on_step` for the loop that also updates `index`."""

        def count(state: PipelineIntermediateState) -> None:
            self.index = state.step
            on_step(state)

        return count

    def __call__(self, latents: torch.Tensor, timestep: torch.Tensor, conditioning: FluxConditioning) -> torch.Tensor:
        """Return the velocity, with the shape of `latents` (batch, 16, height, width)."""
        height, width = latents.shape[-2:]
        dtype = latents.dtype
        # 1. tokens, time and guidance
        tokens = pack(latents)
        grid = positions(height // PACKING, width // PACKING)
        time = (timestep / _TIME_SCALE).to(dtype).expand(len(latents))
        guidance = None
        if self.transformer.config.guidance_embeds:
            guidance = torch.full((len(latents),), self.guidance, dtype=self.transformer.dtype, device=latents.device)
        step = self.steps[self.index] if self.steps else self.index
        call = FluxCall(tokens, time, guidance, conditioning, step, self.count, grid)
        # 2. controls, on the side of the positive prompt
        for control in self.controls if conditioning.positive else ():
            control(call)
        # 3. added channels and references
        inputs = tokens if self.added is None else torch.cat([tokens, self.added.expand(len(tokens), -1, -1)], dim=2)
        all_positions = grid
        if self.references:
            rows = [reference.tokens.expand(len(tokens), -1, -1) for reference in self.references]
            inputs = torch.cat([inputs, *rows], dim=1)
            all_positions = torch.cat([grid, *(reference.positions for reference in self.references)])
        # 4. the network
        with guidance_side(self.transformer, positive=conditioning.positive):
            output = self._network(inputs, all_positions, call, float(timestep) / _TIME_SCALE)
        return unpack(output[:, : tokens.shape[1]], height, width)

    def _network(self, inputs: torch.Tensor, grid: torch.Tensor, call: FluxCall, level: float) -> torch.Tensor:
        net, conditioning = self.transformer, call.conditioning
        hidden = net.x_embedder(inputs)
        embedding = _embedding(net.time_text_embed, call)
        text = net.context_embedder(conditioning.text.expand(len(inputs), -1, -1))
        rotary = self._rotary(grid, text.shape[1], level, inputs)
        mask = _with_references(conditioning.attention_mask, text.shape[1] + inputs.shape[1])
        for number, block in enumerate(net.transformer_blocks):
            with _image_query(block, self.image_prompts) as query:
                text, hidden = block(hidden, text, embedding, rotary, _attention(mask, number))
            for prompt in self.image_prompts:
                hidden = _add(hidden, prompt.term(number, query[0], call))
            hidden = _add(hidden, call.double[number] if call.double else None)
        for number, block in enumerate(net.single_transformer_blocks):
            text, hidden = block(hidden, text, embedding, rotary, _attention(mask, number))
            hidden = _add(hidden, call.single[number] if call.single else None)
        scale, shift = net.norm_out.linear(net.norm_out.silu(embedding)).chunk(2, dim=1)
        output: torch.Tensor = net.proj_out(net.norm_out.norm(hidden) * (1 + scale)[:, None] + shift[:, None])
        return output

    def _rotary(
        self, grid: torch.Tensor, text_tokens: int, level: float, like: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the rotary table of text, at position 0, and image; it is computed once per run without scaling."""
        stretch = 0.0 if self.scaling is None else self.scaling.stretch(level)
        key = (stretch, text_tokens, len(grid))
        if self._table is None or self._table[0] != key:
            ids = torch.cat([torch.zeros(text_tokens, 3), grid])
            table = rotary_table(ids, self.transformer.config.axes_dims_rope, self.transformer.dtype, stretch)
            self._table = (key, tuple(part.to(like.device) for part in table))
        result: tuple[torch.Tensor, torch.Tensor] = self._table[1]
        return result


def _embedding(embed: Any, call: FluxCall) -> torch.Tensor:
    """Return the sum of the embeddings of time, guidance and pooled prompt, each computed in its own number format."""

    def of_time(embedder: Any, value: torch.Tensor) -> torch.Tensor:
        embedding: torch.Tensor = embedder(embed.time_proj(value * _TIME_SCALE).to(value.dtype))
        return embedding

    total = of_time(embed.timestep_embedder, call.time)
    if call.guidance is not None:
        total = total + of_time(embed.guidance_embedder, call.guidance)
    pooled: torch.Tensor = embed.text_embedder(call.conditioning.pooled.expand(len(call.tokens), -1))
    return total + pooled


@contextmanager
def _image_query(block: Any, image_prompts: Sequence[FluxImageAttention]) -> Iterator[list[torch.Tensor]]:
    """Yield a list that gets the query of the block's image tokens, if there are image prompts."""
    query: list[torch.Tensor] = []
    if not image_prompts:
        yield query
        return
    hook = block.attn.norm_q.register_forward_hook(lambda _module, _inputs, output: query.append(output))
    try:
        yield query
    finally:
        hook.remove()


def _add(hidden: torch.Tensor, change: torch.Tensor | None) -> torch.Tensor:
    """Return image tokens with a change of the first ones; references behind them stay."""
    if change is None:
        return hidden
    if change.shape[1] == hidden.shape[1]:
        return hidden + change
    return torch.cat([hidden[:, : change.shape[1]] + change, hidden[:, change.shape[1] :]], dim=1)


def _attention(mask: torch.Tensor | None, number: int) -> dict[str, torch.Tensor] | None:
    """Return the arguments of attention; regions are separated in blocks of even number only."""
    return None if mask is None or number % 2 else {"attention_mask": mask}


def _with_references(mask: torch.Tensor | None, tokens: int) -> torch.Tensor | None:
    """Return a mask for all tokens; references attend to everything and everything attends to them."""
    if mask is None or mask.shape[-1] == tokens:
        return mask
    extended = torch.ones(1, 1, tokens, tokens, dtype=torch.bool, device=mask.device)
    extended[..., : mask.shape[-2], : mask.shape[-1]] = mask
    return extended
