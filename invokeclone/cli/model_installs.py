"""`invokeclone models install`: installs one model, or every model in a folder, with progress and a summary."""

import asyncio
import sys
from collections import Counter
from enum import StrEnum
from pathlib import Path

from invokeclone.cli.main import FAILED, CommandError
from invokeclone.kit.config.settings import Settings
from invokeclone.kit.process.offload import in_thread
from invokeclone.kit.resources import Resources
from invokeclone.models.errors import DuplicateModelException, InvalidModel, UnidentifiedModel
from invokeclone.models.files import candidates
from invokeclone.models.install import registration
from invokeclone.models.install.jobs import ModelInstallJob
from invokeclone.models.install.service import Installer
from invokeclone.models.records.schemas import ModelRecordChanges

_POLL_S = 0.1


class InstallOutcome(StrEnum):
    """How an installation ended, in the words of the summary."""

    INSTALLED = "installed"
    DUPLICATE = "already there"
    NOT_A_MODEL = "not a model"
    FAILED = "failed"


_OUTCOMES = {
    DuplicateModelException.__name__: InstallOutcome.DUPLICATE,
    InvalidModel.__name__: InstallOutcome.NOT_A_MODEL,
    UnidentifiedModel.__name__: InstallOutcome.NOT_A_MODEL,
}
"""Outcomes by the class of the job's error; every other error is a failure."""


async def install(resources: Resources, source: str, *, inplace: bool, move: bool) -> int:
    """Install a source, or each model in a folder of models; print each outcome, and return the exit code.

    The code is 0 if every model is installed or was already, except files in a folder that are not models. Raises
    CommandError if a single source is not installed, or a folder has no models.
    """
    sources = await in_thread(_list_sources, resources.settings, source)
    counts: Counter[InstallOutcome] = Counter()
    installer = Installer(resources)
    await installer.start()
    try:
        for number, item in enumerate(sources, start=1):
            job = await installer.add(item, ModelRecordChanges(), inplace=inplace, move=move)
            await _wait(job, f"[{number}/{len(sources)}] " if len(sources) > 1 else "")
            outcome = _outcome(job)
            counts[outcome] += 1
            if len(sources) == 1 and outcome in {InstallOutcome.NOT_A_MODEL, InstallOutcome.FAILED}:
                raise CommandError(f"not installed: {job.error or job.status}", FAILED)
            sys.stdout.write(_line(job, outcome, item))
            sys.stdout.flush()
    finally:
        await installer.stop()
    if len(sources) > 1:
        sys.stdout.write(", ".join(f"{counts[outcome]} {outcome}" for outcome in InstallOutcome) + "\n")
    is_complete = not counts[InstallOutcome.FAILED] and bool(
        counts[InstallOutcome.INSTALLED] or counts[InstallOutcome.DUPLICATE]
    )
    return 0 if is_complete else FAILED


def _list_sources(settings: Settings, source: str) -> list[str]:
    """Return the sources to install: a local path as an absolute path, or the paths of the models in a folder."""
    try:
        path = Path(source).expanduser().absolute()
        if not path.exists():
            return [source]
        if not path.is_dir() or registration.is_one_model(settings, path):
            return [str(path)]
    except (OSError, RuntimeError):  # no path, or one that cannot be read
        return [source]
    model_paths = [str(candidate) for candidate in candidates.find(path)]
    if not model_paths:
        raise CommandError(f"there are no models in {path}", FAILED)
    return model_paths


async def _wait(job: ModelInstallJob, prefix: str) -> None:
    """Wait for the end of a job, and show its progress."""
    while not job.ended:
        await asyncio.sleep(_POLL_S)
        _show(job, prefix)


def _show(job: ModelInstallJob, prefix: str) -> None:
    """Overwrite the progress line of an installation, if stderr is a terminal."""
    if sys.stderr.isatty() and job.total_bytes:
        end = "\n" if job.ended else ""
        sys.stderr.write(f"\r{prefix}{job.status}: {job.bytes / 1e6:.0f} of {job.total_bytes / 1e6:.0f} MB {end}")
        sys.stderr.flush()


def _outcome(job: ModelInstallJob) -> InstallOutcome:
    if job.config_out is not None:
        return InstallOutcome.INSTALLED
    return _OUTCOMES.get(job.error_reason or "", InstallOutcome.FAILED)


def _line(job: ModelInstallJob, outcome: InstallOutcome, source: str) -> str:
    config = job.config_out
    if config is None:
        return f"{outcome}: {source}: {job.error or job.status}\n"
    return f"{outcome} {config.name} ({config.base} {config.type}): {config.key}\n"
