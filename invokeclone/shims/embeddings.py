"""Replaces names of textual inversions in prompts for other servers by this server's triggers: `<name>`."""

import re
from collections.abc import Iterable, Mapping

from invokeclone.models.configs.model_config import ModelConfig

_IN_TRIGGER = re.compile(r"[a-zA-Z0-9., _-]+")
"""Names that a trigger can contain; other textual inversions are triggered by their keys."""
_COMFYUI = re.compile(r"embedding:(?P<name>[^\s,()<>:]+)", re.IGNORECASE)
_SUFFIX = re.compile(r"\.(safetensors|pt|bin)$", re.IGNORECASE)

Triggers = Mapping[str, str]
"""Triggers by name in lower case."""


def triggers(embeddings: Iterable[ModelConfig], base: str) -> Triggers:
    """Return the triggers of the textual inversions for a base."""
    compatible = [config for config in embeddings if config.base == base]
    return {config.name.casefold(): _trigger(config) for config in compatible}


def _trigger(config: ModelConfig) -> str:
    return f"<{config.name if _IN_TRIGGER.fullmatch(config.name) else config.key}>"


def replace_words(prompt: str, trigger_map: Triggers) -> str:
    """Return a prompt with each name of an embedding that stands as a word replaced by its trigger (AUTOMATIC1111)."""
    if not trigger_map:
        return prompt
    names = "|".join(re.escape(name) for name in sorted(trigger_map, key=len, reverse=True))
    pattern = re.compile(rf"(?<![\w<-])(?:{names})(?![\w>-])", re.IGNORECASE)
    return pattern.sub(lambda match: trigger_map[match[0].casefold()], prompt)


def replace_prefixed(prompt: str, trigger_map: Triggers) -> str:
    """Return a prompt with each `embedding:name` replaced by its trigger (ComfyUI); unknown names stay text."""

    def trigger(match: re.Match[str]) -> str:
        return trigger_map.get(_SUFFIX.sub("", match["name"]).casefold(), match[0])

    return _COMFYUI.sub(trigger, prompt)
