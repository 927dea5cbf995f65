"""Parses A1111's prompt syntax into weighted segments.

`<lora:name:0.8>` applies a LoRA. `(a)` multiplies the weight by 1.1, `[a]` divides it by 1.1, `(a:1.3)` multiplies it
by 1.3; they nest, and a backslash escapes a bracket. `BREAK` starts a new chunk of tokens. Unsupported syntax is
rejected.
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
"""Factor of a pair of brackets without a number."""
Chunk = list[PromptSegment]


def parse(prompt: str, param: str = "prompt") -> Prompt:
    """Return the prompt in chunks separated by BREAK. Raises RequestRejected for unsupported syntax, naming `param`."""
    if network := _NETWORK.search(prompt):
        raise RequestRejected(f"{network[0]}: LoRAs and hypernetworks are allowed only in the prompt", param)
    if _COMPOSED.search(prompt):
        raise RequestRejected(
            "AND (composed prompts) is not supported; write `and`, or BREAK for a separate chunk", param
        )
    reader = _PromptParser(prompt, param)
    reader.read()
    return Prompt(tuple(tuple(chunk) for chunk in reader.chunks()))


def extract_loras(prompt: str, param: str = "prompt") -> tuple[str, list[LoRAChoice]]:
    """Return the prompt without its `<lora:…>` tags, and their LoRAs.

    `<lora:name:0.8>` sets the weight; `<lora:name:0.8:0.5>` or `te=`, `unet=` set the weights of the text encoders and
    the denoiser separately. Raises RequestRejected for hypernetworks and invalid weights.
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
    """Return the weights of the text encoders and of the denoiser."""
    values = {"te": "", "unet": "", "dyn": ""}
    positional_names = iter(("te", "unet", "dyn"))
    for part in rest.split(":")[1:]:
        name, equals, value = part.rpartition("=")
        values[name.strip() if equals else next(positional_names, "dyn")] = value.strip()
    try:
        text = float(values["te"] or 1.0)
        return text, float(values["unet"] or text)
    except ValueError as error:
        raise RequestRejected(f"{network}: a weight must be a number, as in <lora:name:0.8>", param) from error


@dataclass
class _SquareBracket:
    """A square bracket that is not closed yet."""

    first: int
    """Index of the first character inside."""
    depth: int
    """Number of round brackets open before it."""
    colon: int | None = None
    """Position of the last colon directly inside."""


class _PromptParser:
    """Single-pass parser of a prompt."""

    def __init__(self, prompt: str, param: str) -> None:
        self.prompt = prompt
        self.param = param
        self.characters: list[str] = []
        self.weights: list[float] = []
        self.round_starts: list[int] = []
        self.square_brackets: list[_SquareBracket] = []

    def read(self) -> None:
        """Fill `characters` and `weights`."""
        position = 0
        while position < len(self.prompt):
            position = self._next(position)
        for first in self.round_starts:
            self._multiply_weights(first, STEP)
        for bracket in self.square_brackets:
            self._multiply_weights(bracket.first, 1 / STEP)

    def _next(self, position: int) -> int:
        """Parse the token at `position`; return its end."""
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
            raise RequestRejected(f"brackets are nested more than {MAX_NESTING} deep", self.param)
        return position + 1

    def _add(self, character: str) -> None:
        self.characters.append(character)
        self.weights.append(1.0)

    def _read_escape(self, position: int) -> int:
        """Add the bracket or backslash after a backslash; drop a backslash before anything else."""
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
            raise RequestRejected(f"a weight must not be below 0, got {factor:g}", self.param)
        for index in range(first, len(self.weights)):
            self.weights[index] *= factor

    def chunks(self) -> list[Chunk]:
        """Return the chunks separated by BREAK, with adjacent characters of equal weight joined."""
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
