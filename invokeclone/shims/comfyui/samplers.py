"""ComfyUI's samplers and noise schedules, and the nearest scheduler of this server for each pair.

Samplers without a close equivalent are not offered.
"""

from typing import cast

from invokeclone.graph.vocabulary.scheduler_names import SCHEDULER_NAME_VALUES

SAMPLERS: dict[str, tuple[str, str]] = {
    "euler": ("euler", "euler_k"),
    "euler_ancestral": ("euler_a", "euler_a"),
    "heun": ("heun", "heun_k"),
    "heunpp2": ("heun", "heun_k"),
    "dpm_2": ("kdpm_2", "kdpm_2_k"),
    "dpm_2_ancestral": ("kdpm_2_a", "kdpm_2_a_k"),
    "lms": ("lms", "lms_k"),
    "dpmpp_2s_ancestral": ("dpmpp_2s", "dpmpp_2s_k"),
    "dpmpp_sde": ("dpmpp_sde", "dpmpp_sde_k"),
    "dpmpp_sde_gpu": ("dpmpp_sde", "dpmpp_sde_k"),
    "dpmpp_2m": ("dpmpp_2m", "dpmpp_2m_k"),
    "res_multistep": ("dpmpp_2m", "dpmpp_2m_k"),
    "dpmpp_2m_sde": ("dpmpp_2m_sde", "dpmpp_2m_sde_k"),
    "dpmpp_2m_sde_gpu": ("dpmpp_2m_sde", "dpmpp_2m_sde_k"),
    "dpmpp_3m_sde": ("dpmpp_3m", "dpmpp_3m_k"),
    "dpmpp_3m_sde_gpu": ("dpmpp_3m", "dpmpp_3m_k"),
    "ddpm": ("ddpm", "ddpm"),
    "lcm": ("lcm", "lcm"),
    "ipndm": ("pndm", "pndm"),
    "deis": ("deis", "deis_k"),
    "ddim": ("ddim", "ddim"),
    "uni_pc": ("unipc", "unipc_k"),
    "uni_pc_bh2": ("unipc", "unipc_k"),
    "er_sde": ("er_sde", "er_sde"),
}
"""For each sampler, the scheduler with uniform steps and the one with Karras steps."""

SCHEDULES: dict[str, bool] = {
    "normal": False,
    "karras": True,
    "exponential": True,
    "sgm_uniform": False,
    "simple": False,
    "ddim_uniform": False,
    "beta": False,
}
"""The noise schedules, and whether Karras is the nearest."""


def scheduler_for(sampler: str, schedule: str) -> SCHEDULER_NAME_VALUES:
    """Return the scheduler for a sampler and a schedule of the tables."""
    return cast("SCHEDULER_NAME_VALUES", SAMPLERS[sampler][SCHEDULES[schedule]])
