"""Stage 1: the autoencoder, its whitening, and the cached latents.

The loss is L1 + MSE + the L1 of the differences between neighbors (edges) + a small KL. Partway through training the
latents are whitened into the two adjacent 1x1 convolutions, so that 0.18215 is exact.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional
from tqdm import tqdm

from .architecture import LATENT_SCALE, build_vae, load_networks
from .dataset import START
from .parallel import Rank, Trainer, load_averaged, share

if TYPE_CHECKING:
    from pathlib import Path

    from diffusers import AutoencoderKL

LEARNING_RATE = 2e-3
WHITEN_AT = (0.4, 0.7)  # fractions of the budget; once more at the end
FULL_PICTURES_FROM = 0.8
DECODER_RATE, DECODER_NOISE = 1e-3, 0.03


def as_tensor(pictures: np.ndarray) -> torch.Tensor:
    """Convert (n, h, w, 3) uint8 to (n, 3, h, w) floats from -1 to 1."""
    return torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def crops(rank: Rank, small: np.ndarray, large: np.ndarray, fraction: float) -> torch.Tensor:
    """Return a batch: crops that grow from 32² to 64², finally full 128² images, with equal pixel counts."""
    side = 32 if fraction < 0.12 else 64 if fraction < FULL_PICTURES_FROM else 128
    count = max(1, rank.job.batch * 64 * 64 // side**2)
    taken = np.empty((count, side, side, 3), np.uint8)
    for row in taken:
        source = large if rank.chance.random() < 0.3 else small
        y, x = rank.chance.integers(0, source.shape[1] - side + 1, 2)
        row[:] = source[rank.chance.integers(len(source)), y : y + side, x : x + side]
    return as_tensor(taken).to(rank.job.device)


def edge_loss(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Compare the differences between neighboring pixels, horizontally and vertically."""
    delta = first - second
    return delta.diff(dim=-1).abs().mean() + delta.diff(dim=-2).abs().mean()


@torch.no_grad()
def whiten(vae: AutoencoderKL, pictures: torch.Tensor) -> None:
    """Make the scaled latents' mean 0 and covariance the identity, without changing the decoded images.

    Folds z' = A (z - m), with A = C^(-1/2) / 0.18215 (ZCA), into quant_conv, and its inverse into post_quant_conv.
    """
    means = torch.cat([vae.encode(part).latent_dist.mean for part in pictures.split(16)])
    flat = means.permute(1, 0, 2, 3).flatten(1).double()
    centre = flat.mean(1)
    values, vectors = torch.linalg.eigh(torch.cov(flat))
    forward = (vectors @ torch.diag(values.clamp_min(1e-8).rsqrt()) @ vectors.T) / LATENT_SCALE
    quant, post = vae.quant_conv, vae.post_quant_conv
    mean_weight, mean_bias = quant.weight[:4, :, 0, 0].double(), quant.bias[:4].double()
    quant.weight[:4, :, 0, 0] = (forward @ mean_weight).float()
    quant.bias[:4] = (forward @ (mean_bias - centre)).float()
    quant.bias[4:] += forward.square().sum(1).log().float()  # the noise grows with the latents
    post_weight = post.weight[:, :, 0, 0].double()
    post.bias += (post_weight @ centre).float()
    post.weight[:, :, 0, 0] = (post_weight @ forward.inverse()).float()


def train_vae(rank: Rank) -> None:
    """Train the autoencoder in one of the job's processes."""
    small, large = (np.load(rank.job.work / f"{name}.npy", mmap_mode="r") for name in ("small", "large"))
    vae = build_vae().to(rank.job.device)
    trainer = Trainer(rank, "vae", [(vae, LEARNING_RATE)], decay=0.0, average=0.998, hold=0.35)
    due = [moment for moment in WHITEN_AT if moment > trainer.fraction]
    while trainer.running:
        batch = crops(rank, small, large, trainer.fraction)
        posterior = vae.encode(batch).latent_dist
        drawn = vae.decode(posterior.sample()).sample
        whitened = len(due) < len(WHITEN_AT)
        spread = (
            (posterior.var * LATENT_SCALE**2 + (posterior.mean * LATENT_SCALE) ** 2)
            if whitened
            else posterior.var + posterior.mean**2
        )
        divergence = 0.5 * (spread - 1 - posterior.logvar).mean()
        loss = functional.l1_loss(drawn, batch) + functional.mse_loss(drawn, batch)
        loss = loss + (1.0 if whitened else 0.5) * edge_loss(drawn, batch) + (1e-4 if whitened else 3e-4) * divergence
        trainer.step(loss)
        if due and trainer.fraction >= due[0]:
            due.pop(0)
            _whiten_together(rank, trainer, vae, small)
    if rank.leads:
        trainer.save()


def _whiten_together(rank: Rank, trainer: Trainer, vae: AutoencoderKL, small: np.ndarray) -> None:
    whiten(vae, as_tensor(small[:256]).to(rank.job.device))
    share([trainer.values])
    trainer.moving.copy_(trainer.values)


@torch.no_grad()
def finish_vae(work: Path, count: int = 1024, *, sharpened: bool = False) -> tuple[AutoencoderKL, float]:
    """Load the averaged autoencoder, whiten it a last time, and measure its PSNR in dB on new crops.

    The autoencoder of a continued model is already whitened and stays unchanged.
    """
    small = np.load(work / "small.npy", mmap_mode="r")
    if (work / START).exists():
        vae = load_networks(work / START).vae.eval()
    else:
        vae = build_vae().eval()
        load_averaged(work / "vae.pt", [vae])
        whiten(vae, as_tensor(small[:count]))
    if sharpened and (work / "decoder.pt").exists():
        load_averaged(work / "decoder.pt", [vae.decoder, vae.post_quant_conv])
    pictures = as_tensor(small[-64:])
    decoded = vae.decode(vae.encode(pictures).latent_dist.mean).sample.clamp(-1, 1)
    error = (decoded - pictures).div(2).square().mean((1, 2, 3))
    return vae, float((-10 * error.log10()).mean())


def load_latents(work: Path, name: str) -> np.ndarray:
    """Load the cached latents of all processes, in the order of the images, as (n, 4, h/8, w/8) fp16."""
    paths = sorted(work.glob(f"latents-{name}-*.npy"), key=lambda path: int(path.stem.rsplit("-", 1)[1]))
    return np.concatenate([np.load(path) for path in paths])


def sharpen_decoder(rank: Rank) -> None:
    """Train the decoder alone for a while, on whole images' cached latents with a little noise.

    Does not change the latent space, so that it can follow the denoiser's training.
    """
    work, device = rank.job.work, rank.job.device
    vae, _ = finish_vae(work)
    vae.to(device).train()
    trainer = Trainer(
        rank,
        "decoder",
        [(vae.decoder, DECODER_RATE), (vae.post_quant_conv, DECODER_RATE)],
        decay=0.0,
        average=0.998,
        hold=0.2,
    )
    sources = [(np.load(work / f"{name}.npy", mmap_mode="r"), load_latents(work, name)) for name in ("small", "large")]
    while trainer.running:
        large = trainer.steps % 6 == 5
        pictures, latents = sources[large]
        rows = np.sort(rank.chance.integers(len(latents), size=max(1, rank.job.batch // (4 if large else 1))))
        truth = as_tensor(pictures[rows]).to(device)
        noisy = torch.from_numpy(latents[rows].astype(np.float32)).to(device)
        noisy = noisy + DECODER_NOISE * torch.randn_like(noisy)
        drawn = vae.decode(noisy / LATENT_SCALE).sample
        loss = functional.l1_loss(drawn, truth) + functional.mse_loss(drawn, truth) + edge_loss(drawn, truth)
        trainer.step(loss)
    if rank.leads:
        trainer.save()


@torch.no_grad()
def cache_latents(rank: Rank) -> None:
    """Encode this process's share of the images into (n, 4, h/8, w/8) fp16 files, scaled to unit variance."""
    vae, _ = finish_vae(rank.job.work)
    vae.to(rank.job.device)
    for name in ("small", "large"):
        pictures = np.load(rank.job.work / f"{name}.npy", mmap_mode="r")
        indices = np.array_split(np.arange(len(pictures)), rank.job.processes)[rank.number]
        side = pictures.shape[1] // 8
        latents = np.empty((len(indices), 4, side, side), np.float16)
        for start in tqdm(range(0, len(indices), 8), f"latents {name}", disable=not rank.leads, mininterval=10):
            part = as_tensor(pictures[indices[start : start + 8]]).to(rank.job.device)
            latents[start : start + 8] = (vae.encode(part).latent_dist.mean * LATENT_SCALE).half().cpu().numpy()
        np.save(rank.job.work / f"latents-{name}-{rank.number}.npy", latents)
