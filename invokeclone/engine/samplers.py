"""The scheduler names of the API, as diffusers schedulers, and the slice of timesteps that a denoise run goes through.

Which model is denoised, and what happens between two steps, it refuses to know.
"""

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch

from invokeclone.kit.errors import Unprocessable

_KARRAS = {"use_karras_sigmas": True}
_MULTI = "dpmsolver_multistep.DPMSolverMultistepScheduler"
_SINGLE = "dpmsolver_singlestep.DPMSolverSinglestepScheduler"
_SDE = "dpmsolver_sde.DPMSolverSDEScheduler"
_SINGLE_2 = {"solver_order": 2, "lower_order_final": True}
_MULTI_SDE = {"solver_order": 2, "algorithm_type": "sde-dpmsolver++"}

_SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("ddim.DDIMScheduler", {}),
    "ddpm": ("ddpm.DDPMScheduler", {}),
    "deis": ("deis_multistep.DEISMultistepScheduler", {}),
    "deis_k": ("deis_multistep.DEISMultistepScheduler", _KARRAS),
    "lms": ("lms_discrete.LMSDiscreteScheduler", {}),
    "lms_k": ("lms_discrete.LMSDiscreteScheduler", _KARRAS),
    "pndm": ("pndm.PNDMScheduler", {}),
    "heun": ("heun_discrete.HeunDiscreteScheduler", {}),
    "heun_k": ("heun_discrete.HeunDiscreteScheduler", _KARRAS),
    "euler": ("euler_discrete.EulerDiscreteScheduler", {}),
    "euler_k": ("euler_discrete.EulerDiscreteScheduler", _KARRAS),
    "euler_a": ("euler_ancestral_discrete.EulerAncestralDiscreteScheduler", {}),
    "kdpm_2": ("k_dpm_2_discrete.KDPM2DiscreteScheduler", {}),
    "kdpm_2_k": ("k_dpm_2_discrete.KDPM2DiscreteScheduler", _KARRAS),
    "kdpm_2_a": ("k_dpm_2_ancestral_discrete.KDPM2AncestralDiscreteScheduler", {}),
    "kdpm_2_a_k": ("k_dpm_2_ancestral_discrete.KDPM2AncestralDiscreteScheduler", _KARRAS),
    "dpmpp_2s": (_SINGLE, _SINGLE_2),
    "dpmpp_2s_k": (_SINGLE, {**_SINGLE_2, **_KARRAS}),
    "dpmpp_2m": (_MULTI, {"solver_order": 2}),
    "dpmpp_2m_k": (_MULTI, {"solver_order": 2, **_KARRAS}),
    "dpmpp_2m_sde": (_MULTI, _MULTI_SDE),
    "dpmpp_2m_sde_k": (_MULTI, {**_MULTI_SDE, **_KARRAS}),
    "dpmpp_3m": (_MULTI, {"solver_order": 3}),
    "dpmpp_3m_k": (_MULTI, {"solver_order": 3, **_KARRAS}),
    "dpmpp_sde": (_SDE, {"noise_sampler_seed": 0}),
    "dpmpp_sde_k": (_SDE, {"noise_sampler_seed": 0, **_KARRAS}),
    "er_sde": ("er_sde.ERSDEScheduler", {"solver_order": 3, "final_sigmas_type": "zero"}),
    "unipc": ("unipc_multistep.UniPCMultistepScheduler", {}),
    "unipc_k": ("unipc_multistep.UniPCMultistepScheduler", _KARRAS),
    "lcm": ("lcm.LCMScheduler", {}),
    "tcd": ("tcd.TCDScheduler", {}),
}
"""Per name: where the class is, and what its configuration needs beyond the model's own."""

NAMES = tuple(_SAMPLERS)
_OF_THE_SAMPLER = ("use_karras_sigmas", "algorithm_type", "solver_order", "solver_type", "use_exponential_sigmas")
"""Settings that a model's configuration may hold for its own sampler and that mean nothing to another."""
_GENERATOR_MASK = 0x5DEECE66D
"""Keeps the noise of stochastic samplers apart from the initial noise, which is made from the same seed."""


class NoSuchScheduler(Unprocessable):
    """The scheduler name is not one of the API's."""


@lru_cache
def _class(where: str) -> Any:
    module, _, name = where.partition(".")
    package = "invokeclone.engine.er_sde" if module == "er_sde" else f"diffusers.schedulers.scheduling_{module}"
    return getattr(importlib.import_module(package), name)


@lru_cache
def _arguments(cls: Any) -> frozenset[str]:
    return frozenset(inspect.signature(cls.__init__).parameters) - {"self"}


@lru_cache
def _step_arguments(cls: Any) -> frozenset[str]:
    return frozenset(inspect.signature(cls.step).parameters)


def create(name: str, config: Mapping[str, Any]) -> Any:
    """Return a fresh diffusers scheduler for an API name, with the noise schedule of a model's scheduler configuration.

    Raises NoSuchScheduler.
    """
    if name not in _SAMPLERS:
        raise NoSuchScheduler(f"there is no scheduler {name!r}; there are {', '.join(NAMES)}")
    where, extra = _SAMPLERS[name]
    cls = _class(where)
    known = _arguments(cls)
    own = {key: value for key, value in config.items() if key in known and key not in _OF_THE_SAMPLER}
    fitting = {key: value for key, value in extra.items() if key in known}
    if "clip_sample" in known:
        own.setdefault("clip_sample", False)
    if name == "pndm":
        own.setdefault("skip_prk_steps", True)
    return cls(**{**own, **fitting})


@dataclass
class Schedule:
    """A scheduler with the timesteps to go through. Belongs to one denoise run."""

    scheduler: Any
    timesteps: torch.Tensor
    whole: bool
    """Whether it begins with pure noise."""
    step_arguments: dict[str, Any] = field(default_factory=dict)

    @property
    def order(self) -> int:
        """How often the model is called per step."""
        return int(self.scheduler.order)

    def add_noise(self, latents: torch.Tensor, noise: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """Return `latents` with as much noise as belongs to `timestep`, the one that is due."""
        mixed: torch.Tensor = self.scheduler.add_noise(latents, noise, timestep.reshape(1))
        return mixed

    def step(self, prediction: torch.Tensor, timestep: torch.Tensor, latents: torch.Tensor) -> Any:
        """Return diffusers' step output: `prev_sample`, for some also `pred_original_sample`."""
        return self.scheduler.step(prediction, timestep, latents, **self.step_arguments)


def plan(
    scheduler: Any, steps: int, device: torch.device, *, start: float = 0.0, end: float = 1.0, seed: int = 0
) -> Schedule:
    """Return the schedule of `steps` steps of which only the part from `start` to `end` (0 to 1) is run.

    `seed` makes stochastic samplers repeatable; their noise is drawn on the CPU, so that it is the same on every device.
    """
    scheduler.set_timesteps(steps, device=_timestep_device(scheduler, device))
    every, order, highest = scheduler.timesteps, int(scheduler.order), int(scheduler.config.num_train_timesteps)
    first, last = (round(highest * (1.0 - part)) for part in (start, end))
    per_step = every[::order]
    skipped = int((per_step >= first).sum()) if start > 0.0 else 0
    reached = int((per_step >= last).sum()) if end < 1.0 else len(per_step)
    begin, stop = skipped * order, len(every) if reached == len(per_step) else reached * order
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(begin)
    generator = torch.Generator("cpu").manual_seed((seed ^ _GENERATOR_MASK) % 2**32)
    known = _step_arguments(scheduler.__class__)
    arguments = {"generator": generator} if "generator" in known else {}
    return Schedule(scheduler, every[begin : max(stop, begin)], begin == 0, arguments)


def _timestep_device(scheduler: Any, device: torch.device) -> torch.device:
    """UniPC solves a small linear system with its sigmas, which some devices cannot."""
    return torch.device("cpu") if type(scheduler).__name__ == "UniPCMultistepScheduler" else device
