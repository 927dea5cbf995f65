"""Errors of style presets and system prompts."""

from invokeclone.kit.errors import BadRequest, Conflict, Forbidden, NotFound, UnsupportedMedia


class PresetNotFound(NotFound):
    """No style preset has this id."""

    def __init__(self, preset_id: str) -> None:
        """Name the id in the message."""
        super().__init__(f"no style preset has the id {preset_id!r}")


class PromptNotFound(NotFound):
    """No system prompt has this id."""

    def __init__(self, prompt_id: str) -> None:
        """Name the id in the message."""
        super().__init__(f"no system prompt has the id {prompt_id!r}")


class PresetNotYours(Forbidden):
    """The preset or prompt belongs to another user or is bundled with the application."""

    def __init__(self) -> None:
        """Use the fixed message."""
        super().__init__("this preset or prompt belongs to another user")


class PresetInvalid(BadRequest):
    """The submitted data is not a valid style preset."""


class FileInvalid(BadRequest):
    """The import file cannot be read or contains an invalid style preset."""


class FileUnknown(UnsupportedMedia):
    """The import file is neither CSV nor JSON."""

    def __init__(self, content_type: str | None) -> None:
        """Name the content type that was sent."""
        super().__init__(f"send text/csv or application/json, not {content_type!r}")


class TooManyPresets(Conflict):
    """The user has reached the limit of style presets."""

    def __init__(self, limit: int) -> None:
        """Name the limit and the setting it comes from."""
        super().__init__(f"a user may have at most {limit} style presets (setting limits.presets): delete some first")
