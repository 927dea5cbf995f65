"""Stages 2 and 3: the text encoder's warm-up, then denoiser and text encoder together.

The denoiser learns the v-prediction (Salimans & Ho 2022) with a uniform loss over timesteps drawn more often at high
noise, which determines the layout. One caption in ten is dropped, for classifier-free guidance (Ho & Salimans 2022).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from .architecture import TEXT_WIDTH, Networks, build_scheduler, build_text, build_unet, load_networks
from .autoencoder import finish_vae, load_latents
from .dataset import ATTRIBUTES, START, encode, load_tokenizer
from .figures import SHAPES
from .grammar import KINDS
from .parallel import Rank, Trainer, load_averaged
from .text import FILLER_WORDS

if TYPE_CHECKING:
    from pathlib import Path

TEXT_RATE, UNET_RATE, JOINT_TEXT_SHARE = 1e-3, 1.5e-3, 0.15
SHORT = 32  # tokens that fit any caption; the other positions are repeated end tokens
ATTRIBUTE_SHARE = 0.01  # weight of the attributes' loss relative to the denoiser's, while both train together
FROZEN_TEXT_FROM = 0.45  # fraction of the budget from which the text encoder is frozen: it has little left to learn
FULL_LENGTH_FROM = 0.7  # fraction of the budget from which all 77 positions are used
LARGE_FROM, LARGE_EVERY, LARGE_SHARE = 0.25, 6, 3.2  # later every 6th step at 256², with fewer images by this factor
CORE_SHARE = 0.8  # share of a batch's images that are of the measured kinds
LATE_PAIRS, LATE_CATS = 0.4, 2.5  # relative frequencies of these once the text encoder is frozen
DROPPED, JUNK = 0.10, 0.2  # share of dropped captions, and share of those replaced by meaningless words
STEPS = 1000


class AttributeHeads(torch.nn.Module):
    """Predict every attribute of the image from the text encoder's end token."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = torch.nn.ModuleList(torch.nn.Linear(TEXT_WIDTH, values) for values in ATTRIBUTES.values())

    def forward(self, pooled: torch.Tensor) -> list[torch.Tensor]:
        """Map (n, 128) to one (n, values) of logits per attribute."""
        return [head(pooled) for head in self.heads]


def shorten(tokens: np.ndarray, length: int, end: int) -> np.ndarray:
    """Truncate (n, 77) token numbers to (n, length), keeping an end token last."""
    cut = tokens[:, :length].copy()
    cut[:, -1] = end
    return cut


def attribute_losses(heads: AttributeHeads, pooled: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return each attribute's cross-entropy, (8,), for end tokens (n, 128) and labels (n, 8)."""
    return torch.stack(
        [functional.cross_entropy(answer, labels[:, column]) for column, answer in enumerate(heads(pooled))]
    )


def warm_text(rank: Rank) -> None:
    """Train the text encoder to represent the content of the image, before any denoising.

    The text encoder of a continued model is trained further, so that it distinguishes order and colors better.
    """
    tokenizer = load_tokenizer(rank.job.work, rank.number)
    described = np.load(rank.job.work / "described.npz")
    tokens, labels = described["tokens"], torch.from_numpy(described["attributes"])
    start = rank.job.work / START
    text = load_networks(start).text if start.exists() else build_text(tokenizer)
    text, heads = text.to(rank.job.device), AttributeHeads().to(rank.job.device)
    trainer = Trainer(rank, "text", [(text, TEXT_RATE), (heads, TEXT_RATE)], decay=0.01, hold=0.4)
    recent = torch.zeros(len(ATTRIBUTES))
    while trainer.running:
        rows = rank.chance.integers(len(tokens), size=rank.job.batch)
        batch_tokens = shorten(
            tokens[rows, rank.chance.integers(tokens.shape[1], size=len(rows))], SHORT, tokenizer.eos_token_id
        )
        pooled = text(torch.from_numpy(batch_tokens).to(rank.job.device)).pooler_output
        losses = attribute_losses(heads, pooled, labels[rows].to(rank.job.device))
        # Recorded separately: kinds and order are learned last.
        recent = recent.lerp(losses.detach().cpu(), 0.05)
        trainer.step(losses.sum())
    if rank.leads and recent.any():  # otherwise all was done in an earlier run
        trainer.save()
        summary = ", ".join(f"{name} {loss:.3f}" for name, loss in zip(ATTRIBUTES, recent.tolist(), strict=True))
        print(f"text warm-up: losses {summary}", flush=True)


def drop_captions(tokens: np.ndarray, empty: np.ndarray, junk: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Replace one caption in ten by nothing or by meaningless words, in place; return the rows of the others."""
    dropped = np.flatnonzero(rng.random(len(tokens)) < DROPPED)
    tokens[dropped] = empty
    meaningless = dropped[rng.random(len(dropped)) < JUNK]
    tokens[meaningless] = junk[rng.integers(len(junk), size=len(meaningless))]
    return np.setdiff1d(np.arange(len(tokens)), dropped)


def junk_captions(count: int = 512) -> list[str]:
    """Generate prompts of filler words and letters, as people write into the negative prompt."""
    rng = np.random.default_rng(7)
    letters = list("abcdefghijklmnopqrstuvwxyz")
    captions = []
    for _ in range(count):
        parts = [str(word) for word in rng.choice(FILLER_WORDS, size=rng.integers(1, 12))]
        if rng.random() < 0.3:
            parts.append("".join(rng.choice(letters, size=rng.integers(3, 9))))
        captions.append((", " if rng.random() < 0.6 else " ").join(parts))
    return captions


def time_steps(count: int, power: float, rng: np.random.Generator) -> torch.Tensor:
    """Draw (count,) timesteps stratified over the distribution u**power, mostly high noise for power < 1."""
    spread = (np.arange(count) + rng.random(count)) / count
    return torch.from_numpy(np.minimum(STEPS - 1, (STEPS * spread**power)).astype(np.int64))


def add_noise(latents: torch.Tensor, steps: torch.Tensor, signal: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the noisy (n, 4, h, w) latents and the target v."""
    noise = torch.randn_like(latents)
    alpha = signal[steps].sqrt().view(-1, 1, 1, 1)
    sigma = (1 - signal[steps]).sqrt().view(-1, 1, 1, 1)
    target = alpha * noise - sigma * latents
    # Sampling starts from pure noise, which the schedule's last step is not exactly: train on that start too.
    start = (steps >= STEPS - 10).view(-1, 1, 1, 1)
    return torch.where(start, noise, alpha * latents + sigma * noise), target


def core_rows(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the most important rows of the attributes (n, 8), and their weights once the text encoder is frozen.

    These are scenes, single objects and pairs of plain shapes. By then order is learned, and drawing remains: pairs
    become less frequent, and the figure with the most detail more frequent.
    """
    column = {name: index for index, name in enumerate(ATTRIBUTES)}
    kind, other = labels[:, column["kind"]], labels[:, column["other kind"]]
    single = (other == 0) & (labels[:, column["count"]] == 1)
    pair = (kind <= len(SHAPES)) & (other > 0) & (other <= len(SHAPES))
    rows = np.flatnonzero(single | pair)
    weights = np.where(pair, LATE_PAIRS, np.where(kind == KINDS.index("cat") + 1, LATE_CATS, 1.0))[rows]
    return rows, weights.cumsum()


def train_unet(rank: Rank) -> None:
    """Train denoiser and text encoder together on the cached latents."""
    work, device = rank.job.work, rank.job.device
    tokenizer = load_tokenizer(work, rank.number)
    described = np.load(work / "described.npz")
    tokens, labels = described["tokens"], described["attributes"]
    latents = {name: load_latents(work, name) for name in ("small", "large")}
    cores = {name: core_rows(labels[: len(source)]) for name, source in latents.items()}
    empty, junk = encode(tokenizer, [""]), encode(tokenizer, junk_captions())
    signal = build_scheduler().alphas_cumprod.to(device)
    text, heads = build_text(tokenizer), AttributeHeads()
    load_averaged(work / "text.pt", [text, heads])
    unet = load_networks(work / START).unet if (work / START).exists() else build_unet()
    unet.to(device).train()
    text_rate = UNET_RATE * JOINT_TEXT_SHARE
    groups = [(unet, UNET_RATE), (text.to(device).train(), text_rate), (heads.to(device), text_rate)]
    trainer = Trainer(rank, "unet", groups, decay=0.01, average=0.999, hold=0.45)
    large_from = 0.05 if (work / START).exists() else LARGE_FROM
    torch.manual_seed(rank.number + 1000 * (trainer.steps + 1))  # Noise differs between processes.
    while trainer.running:
        large = trainer.fraction >= large_from and trainer.steps % LARGE_EVERY == LARGE_EVERY - 1
        size = "large" if large else "small"
        source, (core, cumulative) = latents[size], cores[size]
        count = max(1, round(rank.job.batch / LARGE_SHARE)) if large else rank.job.batch
        rows = rank.chance.integers(len(source), size=count)
        resting = trainer.fraction >= FROZEN_TEXT_FROM
        is_core = rank.chance.random(count) < CORE_SHARE
        places = rank.chance.random(int(is_core.sum()))
        rows[is_core] = core[
            np.searchsorted(cumulative, places * cumulative[-1]) if resting else (places * len(core)).astype(int)
        ]
        batch_tokens = tokens[rows, rank.chance.integers(tokens.shape[1], size=count)]
        captioned = drop_captions(batch_tokens, empty, junk, rank.chance)
        if resting:
            trainer.rates[1:] = [0.0, 0.0]
        if trainer.fraction < FULL_LENGTH_FROM:
            batch_tokens = shorten(batch_tokens, SHORT, tokenizer.eos_token_id)
        clean = torch.from_numpy(source[rows].astype(np.float32)).to(device)
        steps = time_steps(count, 0.5 if large else 0.62, rank.chance).to(device)
        noisy, target = add_noise(clean, steps, signal)
        with torch.set_grad_enabled(not resting):
            read = text(torch.from_numpy(batch_tokens).to(device))
        answer = unet(noisy, steps, encoder_hidden_states=read.last_hidden_state).sample
        loss = functional.mse_loss(answer, target)
        attribute_loss = torch.zeros(())
        if not resting and len(captioned):
            truth = torch.from_numpy(labels[rows[captioned]]).to(device)
            attribute_loss = ATTRIBUTE_SHARE * attribute_losses(heads, read.pooler_output[captioned], truth).sum()
        trainer.step(loss, attribute_loss)
    if rank.leads:
        trainer.save()


def load_finished(work: Path) -> tuple[Networks, float]:
    """Load all stages' averaged weights; return them with the autoencoder's PSNR in dB."""
    tokenizer = load_tokenizer(work)
    vae, quality = finish_vae(work, sharpened=True)
    text, unet = build_text(tokenizer), build_unet()
    load_averaged(work / "unet.pt", [unet, text])
    return Networks(vae, text.eval(), unet.eval(), tokenizer), quality
