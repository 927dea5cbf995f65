"""AUTOMATIC1111's prompt language, read into weighted segments.

`<lora:name:0.8>` applies a LoRA. `(a)` is 1.1 times as heavy, `[a]` 1.1 times lighter, `(a:1.3)` weighs 1.3; they nest, and a backslash makes a bracket mean
itself. `BREAK` begins a new chunk of tokens. What has no equal here is refused by name.
"""

import itertools
import re
from dataclasses import dataclass

from pydantic import ValidationError

from invokeclone.graph.prompts import Prompt, PromptSegment
from invokeclone.queue.generation import LoRAChoice
from invokeclone.shims.compat_api import RequestRejected

MAX_NESTING = 32
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)"
_WEIGHT = re.compile(rf":\s*({_NUMBER})\s*\)")
_SWITCH_POINT = re.compile(rf"\s*{_NUMBER}\s*")
_NETWORK = re.compile(r"<(lora|lyco|hypernet):([^:<>]+)((?::[^:<>]*)*)>", re.IGNORECASE)
_COMPOSED = re.compile(r"\bAND\b")
_BREAK = re.compile(r"\bBREAK\b")

STEP = 1.1
"""What a pair of brackets without a number multiplies by."""
Chunk = list[PromptSegment]


def parse(prompt: str, param: str = "prompt") -> Prompt:
    """Return the prompt; BREAK separates its chunks. Raises Refused, naming `param`, for what has no equal here."""
    if network := _NETWORK.search(prompt):
        raise RequestRejected(
            f"{network[0]}: LoRAs and hypernetworks are applied by the prompt alone; write it there", param
        )
    if _COMPOSED.search(prompt):
        raise RequestRejected(
            "AND (composed prompts) is not supported; write `and`, or BREAK for a chunk of its own", param
        )
    reader = _PromptParser(prompt, param)
    reader.read()
    return Prompt(tuple(tuple(chunk) for chunk in reader.chunks()))


def extract_loras(prompt: str, param: str = "prompt") -> tuple[str, list[LoRAChoice]]:
    """Return the prompt without what stands in `<lora:…>`, and the LoRAs of it.

    `<lora:name:0.8>` is the weight; `<lora:name:0.8:0.5>` or `te=`, `unet=` set the text encoders' and the denoiser's apart.
    Raises Refused for hypernetworks and for what is no weight.
    """
    loras = []
    for network in _NETWORK.finditer(prompt):
        kind, name, rest = network.groups()
        if kind.casefold() == "hypernet":
            raise RequestRejected(f"{network[0]}: hypernetworks are not supported", param)
        text, denoiser = _network_weights(network[0], rest, param)
        try:
            loras.append(
                LoRAChoice(model=name.strip(), weight=denoiser, text_weight=None if text == denoiser else text)
            )
        except ValidationError as error:
            raise RequestRejected(f"{network[0]}: {error.errors()[0]['msg']}", param) from error
    return _NETWORK.sub("", prompt), loras


def _network_weights(network: str, rest: str, param: str) -> tuple[float, float]:
    """Return the weights on the text encoders and on the denoiser."""
    values = {"te": "", "unet": "", "dyn": ""}
    positional_names = iter(("te", "unet", "dyn"))
    for part in rest.split(":")[1:]:
        name, equals, value = part.rpartition("=")
        values[name.strip() if equals else next(positional_names, "dyn")] = value.strip()
    try:
        text = float(values["te"] or 1.0)
        return text, float(values["unet"] or text)
    except ValueError as error:
        raise RequestRejected(f"{network}: a weight is a number, as in <lora:name:0.8>", param) from error


@dataclass
class _SquareBracket:
    """A square bracket that has not been closed."""

    first: int
    """Index of the first letter inside."""
    depth: int
    """How many round brackets were open before it."""
    colon: int | None = None
    """Where the last colon directly inside stands."""


class _PromptParser:
    """Goes over a prompt once."""

    def __init__(self, prompt: str, param: str) -> None:
        self.prompt = prompt
        self.param = param
        self.characters: list[str] = []
        self.weights: list[float] = []
        self.round_starts: list[int] = []
        self.square_brackets: list[_SquareBracket] = []

    def read(self) -> None:
        """Fill `letters` and the weight of each."""
        position = 0
        while position < len(self.prompt):
            position = self._next(position)
        for first in self.round_starts:
            self._multiply_weights(first, STEP)
        for bracket in self.square_brackets:
            self._multiply_weights(bracket.first, 1 / STEP)

    def _next(self, position: int) -> int:
        """Read what stands at `position`; returns where it ends."""
        character = self.prompt[position]
        weight = _WEIGHT.match(self.prompt, position) if character == ":" and self.round_starts else None
        if weight:
            self._multiply_weights(self.round_starts.pop(), float(weight[1]))
            return weight.end()
        match character:
            case "\\":
                return self._read_escape(position)
            case "(":
                self.round_starts.append(len(self.characters))
            case ")" if self.round_starts:
                self._multiply_weights(self.round_starts.pop(), STEP)
            case "[":
                self.square_brackets.append(_SquareBracket(len(self.characters), len(self.round_starts)))
            case "]" if self.square_brackets:
                self._close(position)
            case _:
                self._check_square(character, position)
                self._add(character)
        if len(self.round_starts) + len(self.square_brackets) > MAX_NESTING:
            raise RequestRejected(f"brackets are nested over {MAX_NESTING} deep", self.param)
        return position + 1

    def _add(self, character: str) -> None:
        self.characters.append(character)
        self.weights.append(1.0)

    def _read_escape(self, position: int) -> int:
        """Let the bracket or backslash after a backslash mean itself; before anything else a backslash is dropped."""
        following = self.prompt[position + 1 : position + 2]
        if following and following in "()[]\\":
            self._add(following)
            return position + 2
        return position + 1

    def _check_square(self, character: str, position: int) -> None:
        if not self.square_brackets or self.square_brackets[-1].depth != len(self.round_starts):
            return
        if character == ":":
            self.square_brackets[-1].colon = position
        elif character == "|":
            raise RequestRejected("[a|b] (alternating words) is not supported", self.param)

    def _close(self, position: int) -> None:
        bracket = self.square_brackets.pop()
        if bracket.colon is not None and _SWITCH_POINT.fullmatch(self.prompt, bracket.colon + 1, position):
            raise RequestRejected("[from:to:when] (prompt editing) is not supported", self.param)
        self._multiply_weights(bracket.first, 1 / STEP)

    def _multiply_weights(self, first: int, factor: float) -> None:
        if factor < 0:
            raise RequestRejected(f"a weight must not be below 0, {factor:g} is", self.param)
        for index in range(first, len(self.weights)):
            self.weights[index] *= factor

    def chunks(self) -> list[Chunk]:
        """Return what was read: neighbours of the same weight joined, parted where BREAK stands."""
        chunks: list[Chunk] = [[]]
        characters = iter(self.characters)
        for weight, group in itertools.groupby(round(weight, 6) for weight in self.weights):
            text = "".join(itertools.islice(characters, sum(1 for _ in group)))
            for number, part in enumerate(_BREAK.split(text)):
                if number:
                    chunks.append([])
                if part:
                    chunks[-1].append(PromptSegment(part, weight))
        return chunks
