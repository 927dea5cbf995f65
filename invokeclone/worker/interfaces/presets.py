"""The `presets` interface: style presets and system prompts of the item's user."""

from invokeclone.presets import prompts, service
from invokeclone.presets.schemas import PresetData
from invokeclone.worker.interfaces.tools import Session


class Presets:
    """The presets interface of one node."""

    def __init__(self, session: Session) -> None:
        """Serve a node of `session`."""
        self._session = session
        self._tools = session.tools

    def style_preset(self, style_preset_id: str) -> PresetData:
        """Return a style preset's templates; raises PresetNotFound, PresetNotYours."""
        user = self._session.user

        async def get() -> PresetData:
            async with self._tools.resources.database.read() as connection:
                return (await service.get(connection, style_preset_id, user)).preset_data

        return self._tools.wait(get())

    def system_prompt(self, system_prompt_id: str) -> str:
        """Return a system prompt's text; raises PromptNotFound, PresetNotYours."""
        user = self._session.user

        async def get() -> str:
            async with self._tools.resources.database.read() as connection:
                return (await prompts.get(connection, system_prompt_id, user)).content

        return self._tools.wait(get())
