"""The table of transitions: each is reached by some scenario, every other one is refused."""

import itertools
from typing import Any
from unittest.mock import Mock

import pytest

from invokeclone.models.install import installation, states
from invokeclone.models.install.installation import Installation
from invokeclone.models.install.jobs import InstallStatus, LocalModelSource, ModelInstallJob
from tests.models.install.from_web.scenarios import SCENARIOS, Stage

STATES = [None, *InstallStatus]


def job(folder: Any) -> Installation:
    """Return a job that nobody works on."""
    public = ModelInstallJob(id=7, source=LocalModelSource(path="/x"), local_path=folder)
    return Installation(public, "key", folder, Mock(parts=[]))


async def test_every_transition_is_reached(
    resources: Any, fake_web: Any, make: Any, fake_hub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installation, "PROGRESS_INTERVAL_S", 0)
    transitions: set[Any] = set()
    apply = states.apply

    def record_transition(job: Installation, to: Any, *arguments: Any) -> Any:
        before = job.state
        result = apply(job, to, *arguments)
        transitions.add((before, to))
        return result

    monkeypatch.setattr(states, "apply", record_transition)
    stage = Stage(resources, fake_web, make, monkeypatch)
    for run in SCENARIOS.values():
        await stage.begin()
        await run(stage)
        await stage.end()
        await stage.check()
    assert transitions == states.TABLE.keys()


@pytest.mark.parametrize(
    ("before", "to"), sorted(set(itertools.product(STATES, STATES)) - states.TABLE.keys(), key=str)
)
def test_every_other_transition_is_refused(before: Any, to: Any, tmp_path: Any, events: Any) -> None:
    install = job(tmp_path)
    install.state = before
    unchanged = install.job.model_copy()
    with pytest.raises(states.TransitionRefused, match="cannot go from"):
        states.apply(install, to, events, {})
    assert (install.state, install.job, events.sent) == (before, unchanged, [])


@pytest.mark.parametrize(("before", "to"), sorted(states.TABLE, key=str))
def test_a_transition_accepts_only_its_fields(before: Any, to: Any, tmp_path: Any, events: Any) -> None:
    install = job(tmp_path)
    install.state = before
    with pytest.raises(states.TransitionRefused, match="requires the fields"):
        states.apply(install, to, events, dict.fromkeys(states.TABLE[before, to].fields ^ {"description"}))
    assert (install.state, events.sent) == (before, [])


def test_a_job_with_a_missing_folder_does_not_return_to_waiting(tmp_path: Any, events: Any) -> None:
    install = job(tmp_path)
    install.state, install.has_folder = InstallStatus.ERROR, False
    with pytest.raises(states.TransitionRefused):
        states.apply(install, InstallStatus.WAITING, events, {})
