"""What can be wrong with a request about presets and system prompts; the statuses are those clients know."""

from invokeclone.kit.errors import BadRequest, Conflict, Forbidden, NotFound, UnsupportedMedia


class PresetNotFound(NotFound):
    """No style preset has this id."""

    def __init__(self, preset_id: str) -> None:
        """Say which."""
        super().__init__(f"no style preset has the id {preset_id!r}")


class PromptNotFound(NotFound):
    """No system prompt has this id."""

    def __init__(self, prompt_id: str) -> None:
        """Say which."""
        super().__init__(f"no system prompt has the id {prompt_id!r}")


class PresetNotYours(Forbidden):
    """It belongs to somebody else, or came with the application."""

    def __init__(self) -> None:
        """Say so."""
        super().__init__("this preset or prompt belongs to somebody else")


class PresetInvalid(BadRequest):
    """What was sent does not make a style preset."""


class FileInvalid(BadRequest):
    """The file of style presets cannot be read, or holds something that is none."""


class FileUnknown(UnsupportedMedia):
    """The file of style presets is neither CSV nor JSON."""

    def __init__(self, content_type: str | None) -> None:
        """Say what it is."""
        super().__init__(f"send text/csv or application/json, not {content_type!r}")


class TooManyPresets(Conflict):
    """The user has as many style presets as there may be."""

    def __init__(self, limit: int) -> None:
        """Say how many, and what to do."""
        super().__init__(f"there may be {limit} style presets of a user (setting limits.presets): delete some first")
