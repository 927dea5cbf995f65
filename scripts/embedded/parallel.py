"""Training in several single-threaded processes: shared gradients, a clock, checkpoints.

Two processes of one thread each are faster than one process of two threads on small networks. Parameters and gradients
are views into one flat tensor, so that averaging, the optimizer and the moving average are a few operations on one
vector.
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import distributed
from tqdm import tqdm

if TYPE_CHECKING:
    from collections.abc import Callable

CHECKPOINT_SECONDS = 120


@dataclass(frozen=True)
class Job:
    """The parameters of every stage's processes."""

    work: Path
    minutes: float
    batch: int
    processes: int
    device: str
    seed: int = 0


@dataclass
class Rank:
    """One process of the job, with its own random number generator."""

    number: int
    job: Job
    chance: np.random.Generator

    @property
    def leads(self) -> bool:
        """Whether this process writes checkpoints and reports."""
        return self.number == 0


def _enter(number: int, stage: Callable[[Rank], None], job: Job, meeting: str) -> None:
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // job.processes) if job.device == "cpu" else 1)
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=number, world_size=job.processes)
    torch.manual_seed(job.seed)  # the same initial weights in every process
    try:
        stage(Rank(number, job, np.random.default_rng([job.seed, number])))
    finally:
        distributed.destroy_process_group()


def run(stage: Callable[[Rank], None], job: Job) -> None:
    """Run a stage in the job's processes and wait for them."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = (stage, job, str(Path(folder) / "meeting"))
        torch.multiprocessing.spawn(_enter, arguments, nprocs=job.processes)


class Trainer:
    """Optimizes networks by wall clock: the learning rate is a function of the used fraction of the budget."""

    def __init__(
        self,
        rank: Rank,
        name: str,
        groups: list[tuple[torch.nn.Module, float]],
        *,
        decay: float,
        average: float = 0.0,
        hold: float = 0.5,
    ) -> None:
        self.rank, self.name, self.hold, self.average = rank, name, hold, average
        self.modules = [module for module, _ in groups]
        self.rates = [rate for _, rate in groups]
        device = rank.job.device
        sizes = [sum(p.numel() for p in module.parameters()) for module in self.modules]
        self.values = torch.empty(sum(sizes), device=device)
        # An additional element carries the clock, so that all processes agree on it.
        self.gradients = torch.zeros(sum(sizes) + 1, device=device)
        self._take_over()
        self.moving = self.values.clone()
        edges = np.cumsum([0, *sizes])
        parts = []
        for start, end in pairwise(edges):
            part = torch.nn.Parameter(self.values[start:end])
            part.grad = self.gradients[start:end]
            parts.append(part)
        self.optimiser = torch.optim.AdamW(
            [{"params": [part]} for part in parts], lr=0.0, betas=(0.9, 0.99), weight_decay=decay, fused=True
        )
        self.steps, self.before, self.fraction, self.losses = 0, 0.0, 0.0, []
        self._load()
        self.started = self.saved = time.monotonic()
        self.bar = tqdm(
            desc=name,
            total=100,
            disable=not rank.leads,
            mininterval=10,
            bar_format="{desc} {percentage:3.0f}% {elapsed}<{remaining} {postfix}",
        )

    def _take_over(self) -> None:
        offset = 0
        for module in self.modules:
            for parameter in module.parameters():
                end = offset + parameter.numel()
                self.values[offset:end] = parameter.detach().flatten()
                parameter.data = self.values[offset:end].view_as(parameter)
                parameter.grad = self.gradients[offset:end].view_as(parameter)
                offset = end

    @property
    def path(self) -> Path:
        """The checkpoint's path."""
        return self.rank.job.work / f"{self.name}.pt"

    def _load(self) -> None:
        if self.path.exists():
            state = torch.load(self.path, map_location=self.rank.job.device, weights_only=True)
            self.values.copy_(state["values"])
            self.moving.copy_(state["moving"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.steps, self.before, self.losses = state["steps"], state["seconds"], state["losses"]
            self.fraction = min(1.0, self.before / (60 * self.rank.job.minutes))
            self.rank.chance = np.random.default_rng([self.rank.job.seed, self.rank.number, self.steps])

    @property
    def running(self) -> bool:
        """Whether the budget is not used up."""
        return self.fraction < 1.0

    @property
    def seconds(self) -> float:
        """The time spent on this stage, including earlier runs."""
        return self.before + time.monotonic() - self.started

    def factor(self) -> float:
        """Return the learning rate's factor: warm-up, constant, then linear to zero by the end of the budget."""
        warm = min(1.0, (self.steps + 1) / 100)
        return warm * min(1.0, max(0.0, 1 - self.fraction) / (1 - self.hold))

    def step(self, loss: torch.Tensor, auxiliary: torch.Tensor | None = None) -> None:
        """Backpropagate the loss, average over processes, update weights and their moving average.

        ``auxiliary`` is added to the loss, but not to its record.
        """
        (loss if auxiliary is None else loss + auxiliary).backward()
        self.gradients[-1] = self.seconds / (60 * self.rank.job.minutes)
        distributed.all_reduce(self.gradients)
        self.gradients /= self.rank.job.processes
        self.fraction = float(self.gradients[-1])
        weights = self.gradients[:-1]
        weights *= min(1.0, 1.0 / (float(weights.norm()) + 1e-6))
        for group, rate in zip(self.optimiser.param_groups, self.rates, strict=True):
            group["lr"] = rate * self.factor()
        self.optimiser.step()
        self.gradients.zero_()
        self.steps += 1
        keep = min(self.average, (1 + self.steps) / (10 + self.steps)) if self.average else 0.0
        self.moving.lerp_(self.values, 1 - keep)
        self._report(float(loss.detach()))

    def _report(self, loss: float) -> None:
        self.losses.append(round(loss, 5))
        if not self.rank.leads:
            return
        self.bar.n = min(100, 100 * self.fraction)
        recent = self.losses[-100:]
        self.bar.set_postfix_str(f"step {self.steps} loss {sum(recent) / len(recent):.4f}", refresh=False)
        self.bar.update(0)
        if time.monotonic() - self.saved > CHECKPOINT_SECONDS or not self.running:
            self.save()

    def save(self) -> None:
        """Write the checkpoint and move it into place atomically."""
        state = {
            "values": self.values,
            "moving": self.moving,
            "optimiser": self.optimiser.state_dict(),
            "steps": self.steps,
            "seconds": self.seconds,
            "losses": self.losses,
        }
        torch.save(state, self.path.with_suffix(".partial"))
        self.path.with_suffix(".partial").rename(self.path)
        self.saved = time.monotonic()


def load_averaged(path: Path, modules: list[torch.nn.Module]) -> None:
    """Fill networks with a checkpoint's moving averages."""
    values = torch.load(path, map_location="cpu", weights_only=True)["moving"]
    offset = 0
    with torch.no_grad():
        for module in modules:
            for parameter in module.parameters():
                end = offset + parameter.numel()
                parameter.copy_(values[offset:end].view_as(parameter))
                offset = end


def share(tensors: list[torch.Tensor]) -> None:
    """Broadcast the leader's tensors to every process."""
    for tensor in tensors:
        distributed.broadcast(tensor, 0)
