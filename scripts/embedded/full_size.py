"""Stage 5: the denoiser alone on images of all sizes, so that it also paints at 512², where other programs begin.

A denoiser that has seen no image of a size repeats objects there: it draws them at the sizes it knows. Each step sees all
sizes at once, because otherwise it forgets one while it learns another. The text encoder stays as it is, so that adapters
of the text remain valid.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from .architecture import Networks, build_scheduler, build_unet
from .autoencoder import finish_vae, load_latents
from .dataset import encode, load_tokenizer
from .denoiser import CORE_SHARE, add_noise, core_rows, drop_captions, junk_captions, load_trained, time_steps
from .parallel import Rank, Trainer, load_averaged

if TYPE_CHECKING:
    from pathlib import Path

LEARNING_RATE = 7e-4
# By size: images per one of the job's batch, share of the loss, and exponent of the timesteps (lower: more high noise,
# which determines the layout, and which a larger image of the same content needs more of).
MIXTURE = {"small": (4.0, 0.25, 0.62), "large": (1.25, 0.25, 0.5), "full": (1.0, 0.5, 0.42)}


def train_full_size(rank: Rank) -> None:
    """Train the denoiser on all cached latents; the job's batch is the number of images at 512² per step."""
    work, device = rank.job.work, rank.job.device
    tokenizer = load_tokenizer(work, rank.number)
    described = np.load(work / "described.npz")
    tokens, labels = described["tokens"], described["attributes"]
    latents = {name: load_latents(work, name) for name in MIXTURE}
    cores = {name: core_rows(labels[: len(source)]) for name, source in latents.items()}
    empty, junk = encode(tokenizer, [""]), encode(tokenizer, junk_captions())
    signal = build_scheduler().alphas_cumprod.to(device)
    unet, text = load_trained(work)
    text.to(device).eval().requires_grad_(False)
    trainer = Trainer(rank, "full", [(unet.to(device).train(), LEARNING_RATE)], decay=0.01, average=0.998, hold=0.35)
    torch.manual_seed(rank.number + 1000 * (trainer.steps + 1))  # Noise differs between processes.

    def loss_at(name: str) -> torch.Tensor:
        per_batch, _, power = MIXTURE[name]
        source, (core, cumulative) = latents[name], cores[name]
        count = max(1, round(per_batch * rank.job.batch))
        rows = rank.chance.integers(len(source), size=count)
        is_core = rank.chance.random(count) < CORE_SHARE
        places = rank.chance.random(int(is_core.sum())) * cumulative[-1]
        rows[is_core] = core[np.searchsorted(cumulative, places)]
        batch_tokens = tokens[rows, rank.chance.integers(tokens.shape[1], size=count)]
        drop_captions(batch_tokens, empty, junk, rank.chance)
        clean = torch.from_numpy(source[rows].astype(np.float32)).to(device)
        steps = time_steps(count, power, rank.chance).to(device)
        noisy, target = add_noise(clean, steps, signal)
        with torch.no_grad():
            read = text(torch.from_numpy(batch_tokens).to(device)).last_hidden_state
        return functional.mse_loss(unet(noisy, steps, encoder_hidden_states=read).sample, target)

    while trainer.running:
        trainer.step(torch.stack([weight * loss_at(name) for name, (_, weight, _) in MIXTURE.items()]).sum())
    if rank.leads:
        trainer.save()


def load_finished(work: Path) -> tuple[Networks, float]:
    """Load all stages' averaged weights; return them with the autoencoder's PSNR in dB."""
    vae, quality = finish_vae(work, sharpened=True)
    unet, text = load_trained(work)
    if (work / "full.pt").exists():
        unet = build_unet()
        load_averaged(work / "full.pt", [unet])
    return Networks(vae, text.eval(), unet.eval(), load_tokenizer(work)), quality
