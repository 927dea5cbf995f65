"""Schedules of discrete noise levels: diffusers' samplers by the API's scheduler names.

A run's sampler is created from the model's own sampler configuration by diffusers' `from_config`: values that are only
defaults of the model's class are replaced by the defaults of the run's class.
"""

import importlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch

from invokeclone.engine.schedules.interface import SolverStep
from invokeclone.engine.schedules.masks import GradientMask, HardMask
from invokeclone.kit.errors import Unprocessable

_UNIFORM, _KARRAS = {"use_karras_sigmas": False}, {"use_karras_sigmas": True}
_SINGLE = "dpmsolver_singlestep.DPMSolverSinglestepScheduler"
_MULTI = "dpmsolver_multistep.DPMSolverMultistepScheduler"
_SDE = "dpmsolver_sde.DPMSolverSDEScheduler"
_MULTI_SDE = {"solver_order": 2, "algorithm_type": "sde-dpmsolver++"}
_ER_SDE = {"solver_order": 3, "final_sigmas_type": "zero", "use_flow_sigmas": False}

_SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("ddim.DDIMScheduler", {}),
    "ddpm": ("ddpm.DDPMScheduler", {}),
    "deis": ("deis_multistep.DEISMultistepScheduler", _UNIFORM),
    "deis_k": ("deis_multistep.DEISMultistepScheduler", _KARRAS),
    "lms": ("lms_discrete.LMSDiscreteScheduler", _UNIFORM),
    "lms_k": ("lms_discrete.LMSDiscreteScheduler", _KARRAS),
    "pndm": ("pndm.PNDMScheduler", {}),
    "heun": ("heun_discrete.HeunDiscreteScheduler", _UNIFORM),
    "heun_k": ("heun_discrete.HeunDiscreteScheduler", _KARRAS),
    "euler": ("euler_discrete.EulerDiscreteScheduler", _UNIFORM),
    "euler_k": ("euler_discrete.EulerDiscreteScheduler", _KARRAS),
    "euler_a": ("euler_ancestral_discrete.EulerAncestralDiscreteScheduler", {}),
    "kdpm_2": ("k_dpm_2_discrete.KDPM2DiscreteScheduler", _UNIFORM),
    "kdpm_2_k": ("k_dpm_2_discrete.KDPM2DiscreteScheduler", _KARRAS),
    "kdpm_2_a": ("k_dpm_2_ancestral_discrete.KDPM2AncestralDiscreteScheduler", _UNIFORM),
    "kdpm_2_a_k": ("k_dpm_2_ancestral_discrete.KDPM2AncestralDiscreteScheduler", _KARRAS),
    "dpmpp_2s": (_SINGLE, {"solver_order": 2, **_UNIFORM}),
    "dpmpp_2s_k": (_SINGLE, {"solver_order": 2, **_KARRAS}),
    "dpmpp_2m": (_MULTI, {"solver_order": 2, **_UNIFORM}),
    "dpmpp_2m_k": (_MULTI, {"solver_order": 2, **_KARRAS}),
    "dpmpp_2m_sde": (_MULTI, {**_MULTI_SDE, **_UNIFORM}),
    "dpmpp_2m_sde_k": (_MULTI, {**_MULTI_SDE, **_KARRAS}),
    "dpmpp_3m": (_MULTI, {"solver_order": 3, **_UNIFORM}),
    "dpmpp_3m_k": (_MULTI, {"solver_order": 3, **_KARRAS}),
    "dpmpp_sde": (_SDE, _UNIFORM),
    "dpmpp_sde_k": (_SDE, _KARRAS),
    "er_sde": ("er_sde.ERSDEScheduler", _ER_SDE),
    "unipc": ("unipc_multistep.UniPCMultistepScheduler", _UNIFORM),
    "unipc_k": ("unipc_multistep.UniPCMultistepScheduler", _KARRAS),
    "lcm": ("lcm.LCMScheduler", {}),
    "tcd": ("tcd.TCDScheduler", {}),
}
"""For each name, the class and the settings that override the model's own configuration."""

NAMES = tuple(_SAMPLERS)
_TIMES_ON_CPU = "UniPCMultistepScheduler"
"""This sampler solves a small linear system with its sigmas, which some devices do not support."""
_LMS_ORDER = 4
"""Highest order of the linear multistep sampler."""
_STEP_SEED_MASK = 0xFFFFFFFF
"""XOR of this and a run's seed is the seed of the noise that samplers add between steps."""


class NoSuchScheduler(Unprocessable):
    """The scheduler name is not one of the API's."""


class StepsNotPossible(Unprocessable):
    """A sampler cannot run this number of steps with the model's configuration."""


@lru_cache
def _class(class_path: str) -> Any:
    module, _, name = class_path.partition(".")
    package = (
        "invokeclone.engine.schedules.er_sde" if module == "er_sde" else f"diffusers.schedulers.scheduling_{module}"
    )
    return getattr(importlib.import_module(package), name)


@lru_cache
def _parameters(function: Any) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters)


def create(
    name: str, config: Mapping[str, Any], *, prediction_type: str | None = None, seeds: Sequence[int] = (0,)
) -> Any:
    """Return a new diffusers sampler for an API name, from a model's sampler configuration.

    `prediction_type` is that of the denoiser's record. `seeds` has one seed per row of the latents. Raises
    NoSuchScheduler.
    """
    if name not in _SAMPLERS:
        raise NoSuchScheduler(f"unknown scheduler {name!r}; use one of {', '.join(NAMES)}")
    class_path, fixed_settings = _SAMPLERS[name]
    cls = _class(class_path)
    parameters = _parameters(cls.__init__)
    settings = {key: value for key, value in fixed_settings.items() if key in parameters}
    if prediction_type is not None:
        settings["prediction_type"] = str(prediction_type)
    if "noise_sampler_seed" in parameters:
        settings["noise_sampler_seed"] = seeds[0] if len(seeds) == 1 else list(seeds)
    if class_path in (_SINGLE, _MULTI) and config.get("algorithm_type") == "deis":
        settings.setdefault("algorithm_type", "dpmsolver++")
    sampler = cls.from_config(dict(config), **settings)
    return _with_pipeline_settings(sampler)


def _with_pipeline_settings(sampler: Any) -> Any:
    """Return the sampler with the two settings changed that diffusers' own pipeline changes in its constructor."""
    if getattr(sampler.config, "clip_sample", False) is True:
        sampler.register_to_config(clip_sample=False)
    if getattr(sampler.config, "steps_offset", 1) != 1:
        sampler.register_to_config(steps_offset=1)
    return sampler


@dataclass
class DiscreteSchedule:
    """A sampler and the part of its timesteps that is run."""

    sampler: Any
    timesteps: torch.Tensor
    first: torch.Tensor | None
    """The timestep for which noise is added at the start; None if no step is run and no noise is added."""
    step_arguments: dict[str, Any] = field(default_factory=dict)

    @property
    def order(self) -> int:
        """Model calls per step."""
        return int(self.sampler.order)

    @property
    def training_steps(self) -> int:
        """The timestep of pure noise."""
        return int(self.sampler.config.num_train_timesteps)

    def start(self, latents: torch.Tensor | None, noise: torch.Tensor | None) -> torch.Tensor:
        """Return noisy latents for the first timestep: latents plus noise, noise only, or latents unchanged.

        Raises ValueError when both are missing.
        """
        if latents is None and noise is None:
            raise ValueError("denoising needs latents or noise to start from")
        initial = torch.zeros_like(noise) if latents is None else latents
        if noise is None or self.first is None:
            return initial
        return self._noisy(initial, noise, self.first)

    def add_noise(self, original: torch.Tensor, noise: torch.Tensor, index: int) -> torch.Tensor:
        """Return clean latents with the noise level of call `index`; -1 is the last timestep of the whole schedule."""
        return self._noisy(original, noise, self._timestep(index))

    def level(self, index: int) -> torch.Tensor:
        """Return the timestep of call `index` as a fraction of the training steps.

        -1 is the last one of the whole schedule.
        """
        return self._timestep(index) / self.training_steps

    def scale_model_input(self, latents: torch.Tensor, index: int) -> torch.Tensor:
        """Return the latents scaled for the model."""
        scaled: torch.Tensor = self.sampler.scale_model_input(latents, self.timesteps[index])
        return scaled

    def step(self, prediction: torch.Tensor, latents: torch.Tensor, index: int) -> SolverStep:
        """Return the sampler's step."""
        arguments = {**self.step_arguments, **_order_argument(self.sampler)}
        result = self.sampler.step(prediction, self.timesteps[index], latents, **arguments)
        return SolverStep(result.prev_sample, _original_of(result, self.sampler))

    def mask(
        self, change: torch.Tensor, original: torch.Tensor, noise: torch.Tensor, *, gradient: bool
    ) -> HardMask | GradientMask:
        """Return a mask that restores the original before each call, with the noise level of that call."""
        kind = GradientMask if gradient else HardMask
        return kind(self, change, original, noise)

    def _timestep(self, index: int) -> torch.Tensor:
        return self.timesteps[index] if index >= 0 else self.sampler.timesteps[index]

    def _noisy(self, original: torch.Tensor, noise: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        rows = max(len(original), len(noise))
        mixed: torch.Tensor = self.sampler.add_noise(original, noise, timestep.reshape(1).expand(rows))
        return mixed


def _order_argument(sampler: Any) -> dict[str, int]:
    """Return the order of a linear multistep sampler's next step: at most one more than the derivatives it has.

    By itself it takes the order from the position in the whole schedule, which is too high in a run that starts later.
    """
    if type(sampler).__name__ != "LMSDiscreteScheduler":
        return {}
    return {"order": min(_LMS_ORDER, len(sampler.derivatives) + 1)}


def _original_of(result: Any, sampler: Any) -> torch.Tensor | None:
    """Return the predicted clean latents of the latest call, if the sampler provides them."""
    prediction: torch.Tensor | None = getattr(result, "pred_original_sample", None)
    if prediction is not None:
        return prediction
    config = sampler.config
    if getattr(config, "algorithm_type", "").endswith("dpmsolver++") or getattr(config, "predict_x0", False):
        converted: torch.Tensor | None = sampler.model_outputs[-1]
        return converted
    return None


def plan(
    sampler: Any,
    steps: int,
    device: torch.device,
    *,
    start: float = 0.0,
    end: float = 1.0,
    seeds: Sequence[int] = (0,),
) -> DiscreteSchedule:
    """Return the schedule of `steps` steps of which only the part from `start` to `end` (0 to 1) is run.

    `seeds`, one per row of the latents, make stochastic samplers reproducible; their noise is drawn on `device`.
    Raises StepsNotPossible.
    """
    on_cpu = type(sampler).__name__ == _TIMES_ON_CPU
    _set_timesteps(sampler, steps, torch.device("cpu") if on_cpu else device)
    if on_cpu:
        sampler.timesteps = sampler.timesteps.to(device)
    timesteps, order, highest = sampler.timesteps, int(sampler.order), int(sampler.config.num_train_timesteps)
    per_step = timesteps[::order]
    skipped = int((per_step >= round(highest * (1.0 - start))).sum())
    count = int((per_step[skipped:] >= round(highest * (1.0 - end))).sum())
    begin = skipped * order
    first = timesteps[begin] if begin < len(timesteps) else None
    part = timesteps[begin : begin + count * order]
    if begin and type(sampler).__name__ == "PNDMScheduler":
        part = _pndm_part(sampler, steps, device, part)
    return DiscreteSchedule(sampler, part, first, _step_arguments(sampler, device, seeds))


def _pndm_part(sampler: Any, steps: int, device: torch.device, part: torch.Tensor) -> torch.Tensor:
    """Return the timesteps of a PNDM run that starts in the middle of the schedule.

    PNDM counts its calls from the start of the run: the first ones are the warm-up by Runge-Kutta, if configured, and
    the third repeats the timestep of the second. A run from the middle skips the warm-up and repeats its own second
    timestep.
    """
    if not sampler.config.skip_prk_steps:
        sampler.register_to_config(skip_prk_steps=True)
        _set_timesteps(sampler, steps, device)
        part = sampler.timesteps[(sampler.timesteps <= part[0]) & (sampler.timesteps >= part.min())]
    levels = torch.unique_consecutive(part)
    return torch.cat([levels[:2], levels[1:]])


def _set_timesteps(sampler: Any, steps: int, device: torch.device) -> None:
    try:
        sampler.set_timesteps(steps, device=device)
    except (
        ValueError,
        IndexError,
        ArithmeticError,
    ) as error:  # PNDM warms up over four, LCM and TCD were trained for fifty
        number = f"{steps} step" if steps == 1 else f"{steps} steps"
        raise StepsNotPossible(
            f"{type(sampler).__name__} cannot run {number} with this model's configuration: choose another number of "
            "steps or another scheduler"
        ) from error


def _step_arguments(sampler: Any, device: torch.device, seeds: Sequence[int]) -> dict[str, Any]:
    parameters = _parameters(type(sampler).step)
    arguments: dict[str, Any] = {}
    if "generator" in parameters:
        generators = [torch.Generator(device).manual_seed((seed ^ _STEP_SEED_MASK) % 2**32) for seed in seeds]
        arguments["generator"] = generators[0] if len(generators) == 1 else generators
    if type(sampler).__name__ == "TCDScheduler":
        arguments["eta"] = 1.0
    return arguments
