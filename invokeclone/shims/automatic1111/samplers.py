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

    def __init__(self) -> None:
        super().__init__("Sampler not found")


class ScheduleNotFound(NotFound):
    """No schedule type has this name."""

    def __init__(self) -> None:
        super().__init__("Scheduler not found")


@dataclass(frozen=True)
class Sampler:
    """An A1111 sampler, and the schedulers that implement it with and without Karras noise levels."""

    name: str
    aliases: tuple[str, ...]
    uniform: SCHEDULER_NAME_VALUES
    karras: SCHEDULER_NAME_VALUES | None = None
    prefers_karras: bool = False
    """Whether its default schedule is Karras."""


SAMPLERS = (
    Sampler("DPM++ 2M", ("k_dpmpp_2m",), "dpmpp_2m", "dpmpp_2m_k", prefers_karras=True),
    Sampler("DPM++ SDE", ("k_dpmpp_sde",), "dpmpp_sde", "dpmpp_sde_k", prefers_karras=True),
    Sampler("DPM++ 2M SDE", ("k_dpmpp_2m_sde",), "dpmpp_2m_sde", "dpmpp_2m_sde_k", prefers_karras=True),
    Sampler("DPM++ 2S", ("k_dpmpp_2s",), "dpmpp_2s", "dpmpp_2s_k", prefers_karras=True),
    Sampler("DPM++ 3M", ("k_dpmpp_3m",), "dpmpp_3m", "dpmpp_3m_k", prefers_karras=True),
    Sampler("Euler a", ("k_euler_a", "k_euler_ancestral"), "euler_a"),
    Sampler("Euler", ("k_euler",), "euler", "euler_k"),
    Sampler("LMS", ("k_lms",), "lms", "lms_k"),
    Sampler("Heun", ("k_heun",), "heun", "heun_k"),
    Sampler("DPM2", ("k_dpm_2",), "kdpm_2", "kdpm_2_k", prefers_karras=True),
    Sampler("DPM2 a", ("k_dpm_2_a", "k_dpm_2_ancestral"), "kdpm_2_a", "kdpm_2_a_k", prefers_karras=True),
    Sampler("DDIM", ("ddim",), "ddim"),
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


def resolve_sampling(name: str | None, schedule: str | None, default_scheduler: str = "euler") -> Sampling:
    """Return the sampling for a sampler name and a schedule type; without a name, that of `default_scheduler`.

    A schedule that is unsupported, or unavailable for this sampler, is replaced by the nearest one, and
    `unavailable_schedule` is set. Raises SamplerNotFound, ScheduleNotFound.
    """
    requested_schedule = _schedule(schedule)
    if not name:
        sampler, default_schedule = _from_scheduler(default_scheduler)
        requested_schedule = (
            default_schedule if requested_schedule == AUTOMATIC and default_schedule == KARRAS else requested_schedule
        )
    else:
        sampler, name_schedule = _find_sampler(name)
        requested_schedule = name_schedule if name_schedule and requested_schedule == AUTOMATIC else requested_schedule
    automatic_schedule = KARRAS if sampler.prefers_karras and name else UNIFORM
    target_schedule = automatic_schedule if requested_schedule == AUTOMATIC else requested_schedule
    used_schedule = _NEAREST.get(target_schedule, target_schedule)
    if used_schedule == KARRAS and sampler.karras is None:
        used_schedule = UNIFORM
    scheduler = sampler.karras if used_schedule == KARRAS and sampler.karras else sampler.uniform
    return Sampling(
        scheduler, sampler.name, used_schedule, None if used_schedule == target_schedule else target_schedule
    )


def _schedule(name: str | None) -> str:
    """Return the label of a supported schedule, or the name of an unsupported one."""
    plain = (name or "automatic").strip().lower().replace(" ", "_")
    if plain in _NEAREST:
        return plain
    if plain not in SCHEDULES:
        raise ScheduleNotFound
    return SCHEDULES[plain]


def _find_sampler(name: str) -> tuple[Sampler, str | None]:
    """Return the sampler, and the schedule if the name ends with one, as in older versions."""
    folded_name = name.strip().casefold()
    for ending, schedule in (("", None), (" karras", KARRAS), ("_ka", KARRAS), (" exponential", "exponential")):
        if folded_name.endswith(ending):
            base = folded_name.removesuffix(ending)
            for sampler in SAMPLERS:
                if base in {alias.casefold() for alias in (sampler.name, *sampler.aliases)}:
                    return sampler, schedule
    if folded_name in get_args(SCHEDULER_NAME_VALUES):
        return _from_scheduler(folded_name)
    raise SamplerNotFound


def _from_scheduler(scheduler: str) -> tuple[Sampler, str]:
    """Return the sampler and schedule of a scheduler of this server."""
    for sampler in SAMPLERS:
        if scheduler in {sampler.uniform, sampler.karras}:
            return sampler, KARRAS if scheduler == sampler.karras else UNIFORM
    raise SamplerNotFound


def describe_samplers() -> list[dict[str, Any]]:
    """Return the samplers in A1111's form."""
    return [
        {
            "name": sampler.name,
            "aliases": list(sampler.aliases),
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
