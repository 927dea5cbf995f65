"""Measurement of how well a model folder follows prompts. Deterministic for a seed.

The prompts are held out: no training image, whatever its caption, has that object in that color on that background
(`grammar.is_held_out`). Images are evaluated without a network (`judge.py`).
"""

from __future__ import annotations

import itertools
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline
from tqdm import tqdm

from invokeclone.families.stable_diffusion.coarse import coarse_prediction

from . import judge
from .figures import FIGURES, SHAPES
from .grammar import NAMES, article, distinct, is_held_out

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from PIL import Image

# Chosen before training: the eight with the most distinct outlines.
MEASURED_SHAPES = ("circle", "square", "triangle", "star", "heart", "diamond", "ring", "cross")
BATCH = 8
ALIKE = {frozenset(("white", "gray")), frozenset(("black", "brown"))}
WORDINGS = (
    "a {object} on a {ground} background",
    "a picture of a {object} on a {ground} background",
    "a {object}, {ground} background",
)


@dataclass(frozen=True)
class PromptCase:
    """A prompt and the expected content of its image."""

    prompt: str
    kinds: tuple[str, ...]
    colours: tuple[str, ...]
    background: str
    relation: str = ""


def single_prompts(kinds: tuple[str, ...], count: int, seed: int) -> list[PromptCase]:
    """Generate prompts for one object on a plain color, every kind equally often, all combinations held out."""
    rng = random.Random(f"measure {kinds} {seed}")
    choices = {}
    for kind in kinds:
        pairs = [
            pair
            for pair in itertools.permutations(NAMES, 2)
            if is_held_out(pair[0], kind, pair[1]) and frozenset(pair) not in ALIKE
        ]
        rng.shuffle(pairs)
        choices[kind] = itertools.cycle(pairs)
    cases = []
    for index in range(count):
        kind = kinds[index % len(kinds)]
        colour, ground = next(choices[kind])
        words = WORDINGS[index % len(WORDINGS)].format(object=f"{colour} {kind}", ground=ground)
        cases.append(PromptCase(_with_article(words), (kind,), (colour,), ground))
    return cases


def pair_prompts(count: int, seed: int) -> list[PromptCase]:
    """Generate prompts for two shapes of different colors, left of, right of, above or below one another."""
    rng = random.Random(f"measure pairs {seed}")
    relations = {"left": "to the left of", "right": "to the right of", "above": "above", "below": "below"}
    cases = []
    for index in range(count):
        relation = list(relations)[index % 4]
        kinds = (rng.choice(MEASURED_SHAPES), rng.choice(MEASURED_SHAPES))
        first = rng.choice(NAMES)
        second = distinct(rng, first)
        ground = distinct(rng, first, second)
        words = f"{article(first)} {kinds[0]} {relations[relation]} {article(second)} {kinds[1]} on {article(ground)} background"
        cases.append(PromptCase(words, kinds, (first, second), ground, relation))
    return cases


def _with_article(words: str) -> str:
    for name in NAMES:
        if name[0] in "aeiou":
            words = words.replace(f"a {name}", f"an {name}")
    return words


def load(folder: Path | str) -> StableDiffusionPipeline:
    """Load a model folder in single precision with the Euler scheduler, configured from the folder's own."""
    pipeline = StableDiffusionPipeline.from_pretrained(
        folder, torch_dtype=torch.float32, local_files_only=True, safety_checker=None
    )
    pipeline.scheduler = EulerDiscreteScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    _lay_out_at_trained_size(pipeline)
    return pipeline


def _lay_out_at_trained_size(pipeline: StableDiffusionPipeline) -> None:
    """Let the pipeline call its UNet as invokeclone does, for sizes beyond the trained ones."""
    plain, coarse = pipeline.unet.forward, coarse_prediction(pipeline.unet, pipeline.scheduler)
    if coarse is None:
        return

    def forward(latents: torch.Tensor, timestep: torch.Tensor, **arguments: object) -> tuple[torch.Tensor]:
        return (coarse(lambda scaled, time: plain(scaled, time, **arguments)[0], latents, timestep),)

    pipeline.unet.forward = forward


def paint(
    pipeline: StableDiffusionPipeline,
    prompts: list[str],
    size: int,
    seed: int,
    *,
    steps: int = 20,
    guidance: float = 4.0,
    negative: str = "",
) -> Iterable[Image.Image]:
    """Generate images of prompts in batches; image i starts from the noise of seed + i, independent of the batch."""
    for start in range(0, len(prompts), BATCH):
        part = prompts[start : start + BATCH]
        noise = [torch.Generator().manual_seed(seed + start + offset) for offset in range(len(part))]
        yield from pipeline(
            part,
            negative_prompt=[negative] * len(part),
            height=size,
            width=size,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=noise,
        ).images


def judge_single(picture: np.ndarray, case: PromptCase, kinds: tuple[str, ...]) -> dict[str, float]:
    """Evaluate one (h, w, 3) image of one object: 1 for right, 0 for wrong, and the IoU of the silhouette."""
    ground = judge.background_colour(picture)
    tint = judge.object_colour(picture, ground)
    plain = case.kinds[0] in SHAPES
    kind, fit = judge.recognise(judge.silhouette(picture, ground, tint if plain else None), kinds)
    return {
        "background": float(judge.nearest_colour(ground) == case.background),
        "colour": float(judge.nearest_colour(tint) == case.colours[0]),
        "shape": float(kind == case.kinds[0]),
        "fit": fit if kind == case.kinds[0] else 0.0,
    }


def judge_pair(picture: np.ndarray, case: PromptCase) -> dict[str, float]:
    """Evaluate one (h, w, 3) image of two objects: both present, and in the right order."""
    places = [judge.colour_place(picture, colour, case.background) for colour in case.colours]
    first, second = places
    if first is None or second is None:
        return {"both": 0.0, "order": 0.0}
    axis = 0 if case.relation in ("left", "right") else 1
    away = second[axis] - first[axis]
    return {"both": 1.0, "order": float((away if case.relation in ("left", "above") else -away) > 0.15)}


def _mean(rows: list[dict[str, float]], key: str) -> float:
    return round(float(np.mean([row[key] for row in rows])), 3)


def measure(
    model_dir: Path | str,
    count: int = 96,
    size: int = 128,
    seed: int = 0,
    *,
    steps: int = 20,
    guidance: float = 4.0,
    negative: str = "",
    pairs: int | None = None,
    figures: int = 0,
) -> dict[str, float]:
    """Measure a model folder on held-out prompts.

    Generates ``count`` single shapes, ``pairs`` images of two (half as many by default) and ``figures`` houses,
    cats and so on, at size x size pixels. Returns fractions from 0 to 1, and seconds per image.
    """
    pipeline = load(model_dir)
    two = count // 2 if pairs is None else pairs
    groups = {
        "single": single_prompts(MEASURED_SHAPES, count, seed),
        "pair": pair_prompts(two, seed),
        "figure": single_prompts(FIGURES, figures, seed),
    }
    everything = [case for group in groups.values() for case in group]
    started = time.monotonic()
    painted = paint(
        pipeline, [case.prompt for case in everything], size, seed, steps=steps, guidance=guidance, negative=negative
    )
    pictures = [
        np.asarray(image, np.float32) for image in tqdm(painted, f"measuring {size}²", len(everything), disable=None)
    ]
    seconds = time.monotonic() - started
    judged: dict[str, list[dict[str, float]]] = {name: [] for name in groups}
    for picture, (name, case) in zip(
        pictures, ((name, case) for name, group in groups.items() for case in group), strict=True
    ):
        judged[name].append(
            judge_pair(picture, case)
            if name == "pair"
            else judge_single(picture, case, SHAPES if name == "single" else FIGURES)
        )
    figures_of = {"count": float(count), "size": float(size), "steps": float(steps), "guidance": guidance}
    result = figures_of | {f"{key}": _mean(judged["single"], key) for key in ("background", "colour", "shape", "fit")}
    for kind in MEASURED_SHAPES:
        rows = [row for row, case in zip(judged["single"], groups["single"], strict=True) if case.kinds[0] == kind]
        if rows:
            result[f"shape {kind}"] = _mean(rows, "shape")
    if judged["pair"]:
        result |= {
            "pairs": float(two),
            "both objects": _mean(judged["pair"], "both"),
            "order": _mean(judged["pair"], "order"),
        }
    if judged["figure"]:
        result |= {
            "figures": float(figures),
            "figure": _mean(judged["figure"], "shape"),
            "figure background": _mean(judged["figure"], "background"),
        }
    return result | {"seconds a picture": round(seconds / len(everything), 3)}
