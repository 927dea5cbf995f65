"""Libraries that are not installed are named with how to install them: in the log at the start and in the items that need them."""

import logging
import threading
from typing import Any

import pytest

from invokeclone.worker import engine
from invokeclone.worker.interfaces.tools import Tools
from invokeclone.worker.loop import describe


def raise_import_error(name: str) -> ModuleNotFoundError:
    with pytest.raises(ModuleNotFoundError) as raised:
        __import__(name)
    return raised.value


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            ModuleNotFoundError("No module named 'torch'", name="torch"),
            "No module named 'torch' - torch is not installed: `python -m pip install torch`, then restart the server",
        ),
        (
            ModuleNotFoundError("No module named 'cv2.aruco'", name="cv2.aruco"),
            "No module named 'cv2.aruco' - cv2 is not installed: `python -m pip install 'invokeclone[nodes]'`, then restart the server",
        ),
        (ImportError("cannot import name 'x' from 'torch'", name="torch"), "cannot import name 'x' from 'torch'"),
    ],
)
def test_missing_module_error_names_the_package_to_install(error: Exception, message: str) -> None:
    assert describe(error)[1] == message


def test_unknown_missing_module_has_no_install_advice() -> None:
    error = raise_import_error("no_such_module_anywhere")
    assert describe(error)[1] == "No module named 'no_such_module_anywhere'"


@pytest.fixture
def imported(monkeypatch: pytest.MonkeyPatch, tools: Tools) -> Any:
    """Have the warm-up fail with an error, and wait for its end."""

    def run(error: Exception) -> None:
        def part(_name: str) -> Any:
            raise error

        monkeypatch.setattr(engine, "_part", part)
        over = threading.Event()
        tools.engine.warm_up(over.set)
        assert over.wait(60)

    return run


def test_worker_without_torch_logs_once_and_keeps_running(imported: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "invokeclone"):
        imported(ModuleNotFoundError("No module named 'torch'", name="torch"))
    assert [record.getMessage() for record in caplog.records] == [
        "no model can run: torch is not installed: `python -m pip install torch`, then restart the server"
    ]
    assert caplog.records[0].exc_info is None


@pytest.mark.filterwarnings("default::pytest.PytestUnhandledThreadExceptionWarning")
def test_other_missing_modules_keep_their_traceback(imported: Any, caplog: pytest.LogCaptureFixture) -> None:
    records: list[BaseException | None] = []
    hook, threading.excepthook = threading.excepthook, lambda arguments: records.append(arguments.exc_value)
    try:
        imported(ModuleNotFoundError("No module named 'other'", name="other"))
        for thread in threading.enumerate():
            if thread.name == "warm-up":
                thread.join(60)
    finally:
        threading.excepthook = hook
    assert [str(error) for error in records] == ["No module named 'other'"]
    assert caplog.records == []
