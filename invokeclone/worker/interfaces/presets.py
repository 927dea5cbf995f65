"""The `presets` interface: style presets and system prompts of the item's user."""

from invokeclone.presets.schemas import PresetData
from invokeclone.worker.interfaces.tools import Session


class Presets:
    """The presets interface of one node."""

    def __init__(self, session: Session) -> None:
        """Serve a node of `session`."""
        self._backend = session.backend
        self._tools = session.tools

    def style_preset(self, style_preset_id: str) -> PresetData:
        """Return a style preset's templates; raises PresetNotFound, PresetNotYours."""
        return self._tools.wait(self._backend.style_preset(style_preset_id))

    def system_prompt(self, system_prompt_id: str) -> str:
        """Return a system prompt's text; raises PromptNotFound, PresetNotYours."""
        return self._tools.wait(self._backend.system_prompt(system_prompt_id))
