"""Names of textual inversions in prompts of other servers' languages, as triggers of ours: `<name>`."""

import re
from collections.abc import Iterable, Mapping

from invokeclone.models.configs.model_config import ModelConfig

_IN_TRIGGER = re.compile(r"[a-zA-Z0-9., _-]+")
"""Names that a trigger may hold; others are triggered by their keys."""
_COMFYUI = re.compile(r"embedding:(?P<name>[^\s,()<>:]+)", re.IGNORECASE)
_SUFFIX = re.compile(r"\.(safetensors|pt|bin)$", re.IGNORECASE)

Triggers = Mapping[str, str]
"""By names in lower case."""


def triggers(embeddings: Iterable[ModelConfig], base: str) -> Triggers:
    """Return what triggers the textual inversions for a base."""
    fitting = [config for config in embeddings if config.base == base]
    return {config.name.casefold(): _trigger(config) for config in fitting}


def _trigger(config: ModelConfig) -> str:
    return f"<{config.name if _IN_TRIGGER.fullmatch(config.name) else config.key}>"


def by_words(prompt: str, known: Triggers) -> str:
    """Return a prompt with triggers where an embedding's name stands as a word, as AUTOMATIC1111 reads it."""
    if not known:
        return prompt
    names = "|".join(re.escape(name) for name in sorted(known, key=len, reverse=True))
    word = re.compile(rf"(?<![\w<-])(?:{names})(?![\w>-])", re.IGNORECASE)
    return word.sub(lambda found: known[found[0].casefold()], prompt)


def by_prefix(prompt: str, known: Triggers) -> str:
    """Return a prompt with triggers where `embedding:name` stands, as ComfyUI reads it; unknown names stay text."""

    def trigger(found: re.Match[str]) -> str:
        return known.get(_SUFFIX.sub("", found["name"]).casefold(), found[0])

    return _COMFYUI.sub(trigger, prompt)
