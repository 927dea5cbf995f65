"""Values of the editor's generator nodes: numbers and texts, computed as the editor does.

Dynamic prompts are not expanded here, nor images of boards listed.
"""

import json
import math
import random
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, JsonValue, TypeAdapter

from invokeclone.kit.json_text import LARGEST, SMALLEST

_FLOAT = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
_INTEGER = re.compile(r"\s*[+-]?\d+")

Number = float | int


class _Counted(BaseModel):
    count: Annotated[int, Field(ge=0)] = 10

    def size(self) -> int:
        """Return the maximum number of values."""
        return self.count


class _Sequence(_Counted):
    type: Literal["float_generator_arithmetic_sequence", "integer_generator_arithmetic_sequence"]
    start: Number = 0
    step: Number = 1

    def make(self) -> list[Any]:
        return [self.start] if self.step == 0 else [self.start + index * self.step for index in range(self.count)]


class _LinearDistribution(_Counted):
    type: Literal["float_generator_linear_distribution", "integer_generator_linear_distribution"]
    start: Number = 0
    end: Number = 1

    def make(self) -> list[Any]:
        if self.count == 1:
            return [self.start]
        steps = [(self.end - self.start) * (index / (self.count - 1)) for index in range(self.count)]
        if self.type.startswith("integer"):
            return [int(self.start) + math.floor(step + 0.5) for step in steps]
        return [self.start + step for step in steps]


class _Uniform(_Counted):
    type: Literal["float_generator_random_distribution_uniform", "integer_generator_random_distribution_uniform"]
    min: Number = 0
    max: Number = 1
    seed: int | None = None
    values: list[float] | None = None

    def make(self) -> list[Any]:
        if self.values is not None:
            return list(self.values)
        source = random.Random(self.seed)
        if self.type.startswith("integer"):
            low, high = sorted((int(self.min), int(self.max)))
            return [source.randint(low, high) for _ in range(self.count)]
        return [source.uniform(self.min, self.max) for _ in range(self.count)]


class _Parsed(BaseModel):
    type: Literal["float_generator_parse_string", "integer_generator_parse_string", "string_generator_parse_string"]
    input: str = ""
    split_on: Annotated[str, Field(alias="splitOn")] = ","

    def size(self) -> int:
        """Return the maximum number of values."""
        return len(self._parts())

    def _parts(self) -> list[str]:
        if not self.split_on:
            return [self.input]
        try:
            separator = str(json.loads(f'"{self.split_on}"'))
        except ValueError:
            separator = self.split_on
        return self.input.split(separator)

    def make(self) -> list[Any]:
        parts = [part for part in self._parts() if part]
        if self.type.startswith("string"):
            return list(parts)
        form, number = (_INTEGER, int) if self.type.startswith("integer") else (_FLOAT, float)
        matches = [form.match(part) for part in parts]
        return [number(match[0]) for match in matches if match]


class DynamicPrompts(BaseModel):
    """Texts of a dynamic prompt, expanded by the caller."""

    type: Literal["string_generator_dynamic_prompts_combinatorial", "string_generator_dynamic_prompts_random"]
    input: str = ""
    max_prompts: Annotated[int, Field(alias="maxPrompts", ge=1)] = 10
    count: Annotated[int, Field(ge=1)] = 10
    seed: int | None = None

    @property
    def combinatorial(self) -> bool:
        """Whether to generate all combinations instead of random ones."""
        return self.type.endswith("combinatorial")

    def size(self) -> int:
        """Return the maximum number of texts."""
        return self.max_prompts if self.combinatorial else self.count


class BoardImages(BaseModel):
    """The images on a board, listed by the caller."""

    type: Literal["image_generator_images_from_board"]
    board_id: str | None = None
    category: Literal["images", "assets"] = "images"


Computed = _Sequence | _LinearDistribution | _Uniform | _Parsed
"""Generators whose values are computed here."""

Generator = Annotated[Computed | DynamicPrompts | BoardImages, Field(discriminator="type")]
_GENERATOR: TypeAdapter[Computed | DynamicPrompts | BoardImages] = TypeAdapter(Generator)


class GeneratorError(ValueError):
    """A generator's values cannot be computed or stored."""


def make(generator: Computed) -> list[Any]:
    """Return a generator's values. Raises GeneratorError for numbers that cannot be computed or stored."""
    try:
        values = generator.make()
    except (ValueError, OverflowError) as error:
        raise GeneratorError(f"its numbers cannot be computed: {error}") from error
    for value in values:
        if isinstance(value, float) and not math.isfinite(value):
            raise GeneratorError(f"{value} is not a finite number")
        if isinstance(value, int) and not SMALLEST <= value <= LARGEST:
            raise GeneratorError(f"{str(value)[:40]} is over 64 bits")
    return values


def read(value: JsonValue) -> Computed | DynamicPrompts | BoardImages:
    """Return the generator in a node's field `generator`. Raises ValidationError if it is invalid."""
    return _GENERATOR.validate_python(value)
