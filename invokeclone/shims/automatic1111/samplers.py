"""A1111's samplers and schedule types, and the nearest scheduler of this server for each pair."""

from dataclasses import dataclass
from typing import Any, get_args

from invokeclone.graph.vocabulary.scheduler_names import SCHEDULER_NAME_VALUES
from invokeclone.kit.errors import NotFound

AUTOMATIC = "Automatic"
UNIFORM = "Uniform"
KARRAS = "Karras"


class SamplerNotFound(NotFound):
    """No sampler has this name."""

    def __init__(self, name: str) -> None:
        names = ", ".join(name for sampler in SAMPLERS for name in (sampler.name, *sampler.replaces))
        super().__init__(f"Sampler not found: {name[:100]!r}. There are: {names}")


class ScheduleNotFound(NotFound):
    """No schedule type has this name."""

    def __init__(self, name: str) -> None:
        names = ", ".join([*SCHEDULES, *_NEAREST])
        super().__init__(f"Scheduler not found: {name[:100]!r}. There are: {names}")


@dataclass(frozen=True)
class Sampler:
    """An A1111 sampler, and the schedulers that implement it with and without Karras noise levels."""

    name: str
    aliases: tuple[str, ...]
    uniform: SCHEDULER_NAME_VALUES
    karras: SCHEDULER_NAME_VALUES | None = None
    prefers_karras: bool = False
    """Whether its default schedule is Karras."""
    replaces: tuple[str, ...] = ()
    """A1111 samplers that this server does not have, to which it is the nearest; by name and alias."""

    def is_named(self, folded_name: str) -> bool:
        """Return whether a case-folded name is one of its names, or of those that it replaces."""
        return folded_name in {name.casefold() for name in (self.name, *self.aliases, *self.replaces)}


SAMPLERS = (
    Sampler("DPM++ 2M", ("k_dpmpp_2m",), "dpmpp_2m", "dpmpp_2m_k", prefers_karras=True),
    Sampler("DPM++ SDE", ("k_dpmpp_sde",), "dpmpp_sde", "dpmpp_sde_k", prefers_karras=True),
    Sampler(
        "DPM++ 2M SDE",
        ("k_dpmpp_2m_sde",),
        "dpmpp_2m_sde",
        "dpmpp_2m_sde_k",
        prefers_karras=True,
        replaces=("DPM++ 3M SDE", "k_dpmpp_3m_sde", "DPM++ 2M SDE Heun", "k_dpmpp_2m_sde_heun"),
    ),
    Sampler(
        "DPM++ 2S",
        ("k_dpmpp_2s",),
        "dpmpp_2s",
        "dpmpp_2s_k",
        prefers_karras=True,
        replaces=("DPM++ 2S a", "k_dpmpp_2s_a", "DPM fast", "k_dpm_fast", "DPM adaptive", "k_dpm_ad"),
    ),
    Sampler("DPM++ 3M", ("k_dpmpp_3m",), "dpmpp_3m", "dpmpp_3m_k", prefers_karras=True),
    Sampler("Euler a", ("k_euler_a", "k_euler_ancestral"), "euler_a"),
    Sampler("Euler", ("k_euler",), "euler", "euler_k"),
    Sampler("LMS", ("k_lms",), "lms", "lms_k"),
    Sampler("Heun", ("k_heun",), "heun", "heun_k", replaces=("Restart",)),
    Sampler("DPM2", ("k_dpm_2",), "kdpm_2", "kdpm_2_k", prefers_karras=True),
    Sampler("DPM2 a", ("k_dpm_2_a", "k_dpm_2_ancestral"), "kdpm_2_a", "kdpm_2_a_k", prefers_karras=True),
    Sampler("DDIM", ("ddim",), "ddim", replaces=("DDIM CFG++", "ddim_cfgpp")),
    Sampler("PLMS", ("plms", "PNDM"), "pndm"),
    Sampler("UniPC", ("unipc",), "unipc", "unipc_k"),
    Sampler("LCM", ("k_lcm",), "lcm"),
    Sampler("DDPM", ("ddpm",), "ddpm"),
    Sampler("DEIS", ("deis",), "deis", "deis_k"),
    Sampler("TCD", ("tcd",), "tcd"),
    Sampler("ER SDE", ("er_sde",), "er_sde"),
)
SCHEDULES = {"automatic": AUTOMATIC, "uniform": UNIFORM, "karras": KARRAS}
"""The supported schedule types: labels by name."""
_NEAREST = {
    "exponential": KARRAS,
    "polyexponential": KARRAS,
    "kl_optimal": KARRAS,
    "align_your_steps": KARRAS,
    "sgm_uniform": UNIFORM,
    "simple": UNIFORM,
    "normal": UNIFORM,
    "ddim": UNIFORM,
    "beta": UNIFORM,
    "turbo": UNIFORM,
}
"""A1111's unsupported schedule types, each with the nearest supported one."""


@dataclass(frozen=True)
class Sampling:
    """A resolved sampler and schedule."""

    scheduler: SCHEDULER_NAME_VALUES
    sampler: str
    """Its A1111 name."""
    schedule: str
    """The label of the schedule in use."""
    unavailable_schedule: str | None = None
    """The requested schedule, if it is not available for this sampler."""
    unavailable_sampler: str | None = None
    """The requested sampler, if it was replaced by the nearest one."""


def resolve_sampling(name: str | None, schedule: str | None, default_scheduler: str = "euler") -> Sampling:
    """Return the sampling for a sampler name and a schedule type; without a name, that of `default_scheduler`.

    A sampler or schedule that is unsupported, or a schedule that is unavailable for the sampler, is replaced by the
    nearest one, and `unavailable_sampler` or `unavailable_schedule` is set. Raises SamplerNotFound, ScheduleNotFound.
    """
    requested_schedule, replaced_sampler = _schedule(schedule), None
    if not name:
        sampler, default_schedule = _from_scheduler(default_scheduler)
        requested_schedule = (
            default_schedule if requested_schedule == AUTOMATIC and default_schedule == KARRAS else requested_schedule
        )
    else:
        sampler, name_schedule, replaced_sampler = _find_sampler(name)
        requested_schedule = name_schedule if name_schedule and requested_schedule == AUTOMATIC else requested_schedule
    automatic_schedule = KARRAS if sampler.prefers_karras and name else UNIFORM
    target_schedule = automatic_schedule if requested_schedule == AUTOMATIC else requested_schedule
    used_schedule = _NEAREST.get(target_schedule, target_schedule)
    if used_schedule == KARRAS and sampler.karras is None:
        used_schedule = UNIFORM
    scheduler = sampler.karras if used_schedule == KARRAS and sampler.karras else sampler.uniform
    return Sampling(
        scheduler,
        sampler.name,
        used_schedule,
        None if used_schedule == target_schedule else target_schedule,
        replaced_sampler,
    )


def _schedule(name: str | None) -> str:
    """Return the label of a supported schedule, or the name of an unsupported one."""
    plain = (name or "automatic").strip().lower().replace(" ", "_")
    if plain in _NEAREST:
        return plain
    if plain not in SCHEDULES:
        raise ScheduleNotFound(name or "")
    return SCHEDULES[plain]


def _find_sampler(name: str) -> tuple[Sampler, str | None, str | None]:
    """Return the sampler, the schedule if the name ends with one as in older versions, and the sampler it replaces."""
    folded_name = name.strip().casefold()
    for ending, schedule in (("", None), (" karras", KARRAS), ("_ka", KARRAS), (" exponential", "exponential")):
        if folded_name.endswith(ending):
            base = folded_name.removesuffix(ending)
            if sampler := next((sampler for sampler in SAMPLERS if sampler.is_named(base)), None):
                is_replacement = base in {other.casefold() for other in sampler.replaces}
                return sampler, schedule, name.strip()[: len(base)] if is_replacement else None
    if folded_name in get_args(SCHEDULER_NAME_VALUES):
        return *_from_scheduler(folded_name), None
    raise SamplerNotFound(name)


def _from_scheduler(scheduler: str) -> tuple[Sampler, str]:
    """Return the sampler and schedule of a scheduler of this server."""
    for sampler in SAMPLERS:
        if scheduler in {sampler.uniform, sampler.karras}:
            return sampler, KARRAS if scheduler == sampler.karras else UNIFORM
    raise SamplerNotFound(scheduler)


def describe_samplers() -> list[dict[str, Any]]:
    """Return the samplers in A1111's form; those that one replaces are among its aliases."""
    return [
        {
            "name": sampler.name,
            "aliases": [*sampler.aliases, *sampler.replaces],
            "options": {"scheduler": "karras"} if sampler.prefers_karras else {},
        }
        for sampler in SAMPLERS
    ]


def describe_schedules() -> list[dict[str, Any]]:
    """Return the schedules in A1111's form."""
    return [
        {"name": name, "label": label, "aliases": None, "default_rho": -1.0, "need_inner_model": False}
        for name, label in SCHEDULES.items()
    ]
