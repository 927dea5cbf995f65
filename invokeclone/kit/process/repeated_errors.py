"""The log of errors that come again and again, until what causes them is over."""

import logging


class RepeatedErrors:
    """Logs the errors of work that is tried again: the first of its class since the last success.

    The error of a database that is down, for example, is the same each time.
    """

    def __init__(
        self, action: str, *, failure: str, logger: logging.Logger, expected: tuple[type[Exception], ...] = ()
    ) -> None:
        """Log under `action`; `failure` is what an error means.

        Errors of `expected` classes are logged as warnings without a traceback.
        """
        self._action = action
        self._failure = failure
        self._logger = logger
        self._expected = expected
        self._logged: set[type[BaseException]] = set()

    def report(self, error: BaseException) -> None:
        """Log an error unless one of its class was logged since the last success."""
        if type(error) in self._logged:
            return
        self._logged.add(type(error))
        extra = {"action": self._action}
        if isinstance(error, self._expected):
            self._logger.warning("%s: %s", self._failure, error, extra=extra)
        else:
            self._logger.error("%s", self._failure, exc_info=error, extra=extra)

    def note_success(self) -> None:
        """Log the next error again."""
        if self._logged:
            self._logger.info("recovered (%s)", self._failure, extra={"action": self._action})
        self._logged.clear()
