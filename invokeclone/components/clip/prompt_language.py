"""The prompt language of compel: weights, `.swap()`, `.blend()`, `.and()`, nested parentheses and quotes.

The grammar is compel's. Parsing takes time in proportion to the length of the prompt: compel's own parser tries every
alternative again at each level of nesting, and eight levels take it minutes. `tests/components/clip` compares the two.
"""

import re
from collections.abc import Callable, Sequence

from invokeclone.components.clip.prompt_nodes import (
    MAX_WEIGHT,
    Blend,
    Conjunction,
    Fragment,
    Node,
    PromptSyntaxError,
    Swap,
    Swapped,
    Weighted,
    check_weight,
    flatten,
    unescape,
)

MAX_NESTING = 100
"""Levels of parentheses."""
PLUS, MINUS = 1.1, 0.9
"""The weights of one plus and one minus sign."""
_EXCERPT = 60

_GAP = re.compile(r"[ \n\r]*")
_FREE_WORD = re.compile(r"[^ \n\r]+")
_WORD = re.compile(r"""(?:\\[()",.+\-=]|[+-](?![ \n\r()",.+\-=]|\Z)|[^ \n\r()",.+\-=])+""")
"""A word without syntax."""
_QUOTED = re.compile(r'"((?:\\"|[^"\n\r])*)"')
_SIGNS = re.compile(r"\++|-+")
_NUMBER = re.compile(r"[+-]?(?:\d+\.\d*|\.\d+)|-?[0-9]+")
_KEYWORD = re.compile(r"[A-Za-z0-9_-]+")
_LORA = re.compile(r"(?:useLora|withLora)[ \n\r]*\([ \n\r]*[A-Za-z0-9_-]+[ \n\r]*(?:,[ \n\r]*(?:[+-]?(?:\d+\.\d*|\.\d+)|-?[0-9]+)[ \n\r]*)?\)")  # fmt: skip
_OPERATOR = re.compile(r"[ \n\r]*\.(swap|attend)[ \n\r]*\(")
_LIST_OPERATOR = re.compile(r"[ \n\r]*\.(blend|and|add)[ \n\r]*\(")
_COMMA_WITHOUT_SPACE = re.compile(r",(\S)")
_OTHER_SPACE = str.maketrans("\t\x0b\x0c", "   ")
_WRITTEN_SPACE = re.compile(r"\\[tnfr]")


_Match = tuple[int, list[Node]]
"""The position behind a match, and its nodes."""


def parse(prompt: str) -> Conjunction:
    """Return the parsed prompt. Raises PromptSyntaxError."""
    text = _COMMA_WITHOUT_SPACE.sub(r", \1", prompt).translate(_OTHER_SPACE)
    if not text.strip():
        return _EMPTY
    parsed = _Parser(text).conjunction()
    parts, weights = parsed
    return Conjunction(tuple(parts), tuple(weights)) if parts else _EMPTY


_EMPTY = Conjunction(((Fragment(""),),), (1.0,))


class _Parser:
    """A parser of one text. Results at each position are nonempty, so no part of the text is parsed twice."""

    def __init__(self, text: str, depth: int = 0) -> None:
        self.text = text
        self._parenthesized: dict[int, _Match | None] = {}
        self._quoted: dict[int, _Match | None] = {}
        self._replacements: dict[int, _Match | None] = {}
        self._depth = depth
        """Open parentheses around the position, including those around the quotation that `text` is from."""

    # Whole prompts

    def conjunction(self) -> tuple[list[tuple[Fragment | Swap, ...] | Blend], list[float]]:
        """Parse the whole text and return its parts with their weights; parts without text are left out."""
        joined = self._list(self._skip(0))
        if joined and joined[1] != "blend":
            _, operator, prompts, options = joined
            numbers = _numbers(operator, options)
            flat = [flatten(prompt) for prompt in prompts]
            nonempty = [
                (part, weight) for part, weight in zip(flat, _weights(operator, flat, numbers), strict=True) if part
            ]
            return [part for part, _ in nonempty], [weight for _, weight in nonempty]
        start = self._skip_loras(0)
        blended = self._list(self._skip(start))
        if blended and blended[1] == "blend":
            end, _, prompts, options = blended
            end = self._skip_loras(end)
            if self._skip(end) != len(self.text):
                raise self._error(end, "nothing may follow .blend()")
            return [_blend(prompts, options)], [1.0]
        part = flatten(self.prompt(start))
        return ([part], [1.0]) if part else ([], [])

    def prompt(self, position: int = 0) -> list[Node]:
        """Parse everything from `position`: syntax where it is valid, and literal text where it is not."""
        nodes: list[Node] = []
        while (position := self._skip(position)) < len(self.text):
            match = self._part(position, words=False)
            if match is None:
                word = _FREE_WORD.match(self.text, position)
                assert word is not None
                match = word.end(), [unescape(word[0])]
            position = match[0]
            nodes += match[1]
        return nodes

    def fragments(self, position: int = 0, *, punctuation: bool = True) -> _Match:
        """Parse words and syntax from `position` as far as possible."""
        if self._depth == MAX_NESTING:
            raise self._error(position, f"over {MAX_NESTING} levels of parentheses")
        self._depth += 1
        nodes: list[Node] = []
        while True:
            start = self._skip(position)
            match = self._part(start)
            if match is None and punctuation and self.text[start : start + 1] in {",", "."}:
                match = start + 1, [self.text[start]]
            if match is None:
                break
            position = match[0]
            nodes += match[1]
        self._depth -= 1
        return position, nodes

    # Parts

    def _part(self, position: int, *, words: bool = True) -> _Match | None:
        """Parse a LoRA (which has no text), or a word, quotes or parentheses with what is applied to them.

        Without `words`, a word to which nothing is applied is no match.
        """
        if lora := _LORA.match(self.text, position):
            return lora.end(), []
        target = self._target(position)
        if target is None:
            return None
        end, nodes = target
        if operator := _OPERATOR.match(self.text, end):
            apply = self._swap if operator[1] == "swap" else self._attend
            if applied := apply(operator.end(), nodes):
                return applied
        bracketed = self.text[position] in '("'
        weight = _SIGNS.match(self.text, end) or (_NUMBER.match(self.text, end) if bracketed else None)
        if weight:
            return weight.end(), [Weighted(_weight(weight[0]), nodes)]
        return target if bracketed or words else None

    def _target(self, position: int) -> _Match | None:
        first = self.text[position : position + 1]
        if first == "(":
            return self._at(position, self._parenthesized, self._parse_parenthesized)
        if first == '"':
            return self._at(position, self._quoted, self._parse_quoted)
        word = _WORD.match(self.text, position)
        return (word.end(), [unescape(word[0])]) if word else None

    @staticmethod
    def _at(
        position: int, results: dict[int, _Match | None], parse_at: Callable[[int], _Match | None]
    ) -> _Match | None:
        if position not in results:
            results[position] = parse_at(position)
        return results[position]

    def _parse_parenthesized(self, position: int) -> _Match | None:
        end, nodes = self.fragments(position + 1)
        end = self._skip(end)
        return (end + 1, nodes) if self.text.startswith(")", end) else None

    def _parse_quoted(self, position: int) -> _Match | None:
        content = self._quotation(position)
        if content is None:
            return None
        end, inner = content
        if not inner.strip():
            return end, [""]
        parser = _Parser(inner, self._depth)
        last, nodes = parser.fragments()
        return (end, nodes) if parser._skip(last) == len(inner) else None

    def _quotation(self, position: int) -> tuple[int, str] | None:
        """Return the end of the quotation at `position` and its content."""
        match = _QUOTED.match(self.text, position)
        if match is None:
            return None
        return match.end(), _WRITTEN_SPACE.sub(" ", match[1]).replace('\\"', '"').replace('"', '\\"')

    def _swap(self, position: int, original: list[Node]) -> _Match | None:
        edited = self._at(position, self._replacements, self._parse_replacement)
        return (edited[0], [Swapped(original, edited[1])]) if edited else None

    def _parse_replacement(self, position: int) -> _Match | None:
        end, edited = self.fragments(position, punctuation=False)
        end = self._skip(end)
        if self.text.startswith(",", end):
            end = self._options(end + 1)[0]
        return self._close(end, edited)

    def _attend(self, position: int, nodes: list[Node]) -> _Match | None:
        position = self._skip(position)
        weight = _SIGNS.match(self.text, position) or _NUMBER.match(self.text, position)
        return self._close(weight.end(), [Weighted(_weight(weight[0]), nodes)]) if weight else None

    def _close(self, position: int, nodes: list[Node]) -> _Match | None:
        end = self._skip(position)
        return (end + 1, nodes) if self.text.startswith(")", end) else None

    # Lists of prompts

    def _list(self, position: int) -> tuple[int, str, list[list[Node]], list[str]] | None:
        """Parse `(a, b).operator(options)`: the end, the operator, the prompts and the options."""
        if not self.text.startswith("(", position):
            return None
        prompts = []
        while True:
            position = self._skip(position + 1)
            match = self._target(position) or self._parse_quoted_prompt(position)
            if match is None:
                return None
            prompts.append(match[1])
            position = self._skip(match[0])
            if not self.text.startswith(",", position):
                break
        operator = _LIST_OPERATOR.match(self.text, position + 1) if self.text.startswith(")", position) else None
        if operator is None:
            return None
        end, options = self._options(operator.end())
        closed = self._close(end, [])
        return (closed[0], operator[1], prompts, options) if closed else None

    def _parse_quoted_prompt(self, position: int) -> _Match | None:
        content = self._quotation(position)
        return (content[0], _Parser(content[1], self._depth).prompt()) if content else None

    def _options(self, position: int) -> tuple[int, list[str]]:
        """Parse words, numbers and `name=value`, separated by commas; return the end, and numbers and names."""
        options: list[str] = []
        end = position
        while True:
            position = self._skip(position)
            match = self._option(position)
            if match is None:
                return end, options
            end = match[0]
            options.append(match[1])
            position = self._skip(end)
            if not self.text.startswith(",", position):
                return end, options
            position += 1

    def _option(self, position: int) -> tuple[int, str] | None:
        number, name = _NUMBER.match(self.text, position), _KEYWORD.match(self.text, position)
        if name:
            sign = self._skip(name.end())
            value = self._skip(sign + 1)
            if self.text.startswith("=", sign):
                match = _NUMBER.match(self.text, value) or _KEYWORD.match(self.text, value)
                if match:
                    return match.end(), f"{name[0]}="
        option = number or name
        return (option.end(), option[0]) if option else None

    # Characters

    def _skip(self, position: int) -> int:
        """Return the position behind white space."""
        gap = _GAP.match(self.text, position)
        return gap.end() if gap else position

    def _skip_loras(self, position: int) -> int:
        while lora := _LORA.match(self.text, self._skip(position)):
            position = lora.end()
        return position

    def _error(self, position: int, problem: str) -> PromptSyntaxError:
        excerpt = self.text[max(0, position - _EXCERPT // 2) : position + _EXCERPT // 2]
        return PromptSyntaxError(f"the prompt has a syntax error near character {position + 1}, {excerpt!r}: {problem}")


def _weight(text: str) -> float:
    """Return the weight of plus or minus signs, or of a number."""
    if text.strip("+") and text.strip("-"):
        return float(text)
    base = PLUS if text[0] == "+" else MINUS
    return float(base ** min(len(text), 2000))


def _numbers(operator: str, options: list[str]) -> list[float]:
    try:
        return [check_weight(float(option)) for option in options]
    except ValueError as error:
        raise PromptSyntaxError(
            f"the prompt cannot be parsed: .{operator}() takes numbers up to {MAX_WEIGHT:g}, not {', '.join(options)[:_EXCERPT]}"
        ) from error


def _weights(operator: str, prompts: Sequence[object], numbers: list[float]) -> list[float]:
    if numbers and len(numbers) != len(prompts):
        raise PromptSyntaxError(
            f"the prompt cannot be parsed: .{operator}() has {len(numbers)} weights for {len(prompts)} prompts"
        )
    return numbers or [1.0] * len(prompts)


def _blend(prompts: list[list[Node]], options: list[str]) -> Blend:
    normalize = options[-1:] != ["no_normalize"]
    weights = _weights("blend", prompts, _numbers("blend", options if normalize else options[:-1]))
    if normalize and sum(weights) == 0:
        raise PromptSyntaxError("the prompt cannot be parsed: the weights of .blend() add up to 0; use no_normalize")
    flat = [flatten(prompt) or (Fragment(""),) for prompt in prompts]
    if any(isinstance(item, Swap) for prompt in flat for item in prompt):
        raise PromptSyntaxError("the prompt cannot be parsed: .swap() is not possible inside of .blend()")
    plain = tuple(tuple(item for item in prompt if isinstance(item, Fragment)) for prompt in flat)
    return Blend(plain, tuple(weights), normalize)
