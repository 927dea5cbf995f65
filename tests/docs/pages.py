"""The Markdown documents, and what is in them: code blocks, inline code, links, headings."""

import re
import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from scripts.write_docs import PART, ROOT, documents

FENCE = re.compile(r"^ *```([\w-]*)[^\n]*\n(.*?)^ *```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Page:
    """A document."""

    path: Path

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def written(self) -> str:
        """The text without its generated parts."""
        return PART.sub("", self.text)

    @cached_property
    def blocks(self) -> list[tuple[str, str]]:
        """Language and text of each code block."""
        return FENCE.findall(self.text)

    @cached_property
    def prose(self) -> str:
        """The text without code blocks."""
        return FENCE.sub("", self.text)

    @cached_property
    def inline(self) -> list[str]:
        """Each piece of inline code outside of generated parts."""
        return re.findall(r"`([^`\n]+)`", FENCE.sub("", self.written))

    @cached_property
    def links(self) -> list[str]:
        """Targets of links."""
        return re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", self.prose))

    @cached_property
    def anchors(self) -> set[str]:
        """Anchors of headings, as GitHub makes them."""
        headings = re.findall(r"^#+ (.+)$", self.prose, re.MULTILINE)
        return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}

    @cached_property
    def commands(self) -> list[list[str]]:
        """Words of each `invokeclone …` command, in inline code and shell blocks."""
        blocks = FENCE.findall(self.written)
        shell = [text for language, text in blocks if language in ("bash", "text", "")]
        lines = [line for text in shell for line in text.replace("\\\n", " ").splitlines()] + self.inline
        found = []
        for line in lines:
            if match := re.search(r"(?:^|[\s/])invokeclone ((?:[a-z-]|[A-Z\[])[^|>#&)]*)", line):
                if re.search(r"(docker|pip) .*invokeclone ", line) and "exec" not in line:
                    continue
                found.append(shlex.split(match[1].replace("…", ""), comments=True))
        return found


PAGES = [Page(path) for path in documents()]
NAMES = [page.path.relative_to(ROOT).as_posix() for page in PAGES]
