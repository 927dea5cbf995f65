"""Train the embedded model from scratch on images that it draws itself.

Run from the repository's root: ``python scripts/train_embedded.py --work BUILD --out MODEL``. Every stage keeps
checkpoints in ``--work`` and resumes from them. The defaults suit two CPU cores and two hours; ``--smoke`` runs all
stages in about a minute without a useful result. ``--start-from MODEL`` continues from a finished folder instead: its
tokenizer and autoencoder stay unchanged, its text encoder and denoiser are trained further, on other images if
``--first-picture`` is given.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
# Inherited by the training processes: otherwise glibc returns large tensors' memory to the system after every
# operation, and half of the time is spent on page faults.
os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(2**30))
os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(2**34))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from scripts.embedded import architecture, autoencoder, dataset, denoiser, parallel


@dataclass(frozen=True)
class Budget:
    """Resources of a training: minutes per stage, number of images, and batch sizes."""

    vae: float
    text: float
    unet: float
    decoder: float
    pictures: int
    large_pictures: int
    vae_batch: int  # crops of 64² per process
    text_batch: int  # captions per process
    unet_batch: int  # images of 128² per process


SMOKE = Budget(
    vae=0.12, text=0.08, unet=0.2, decoder=0.1, pictures=96, large_pictures=32, vae_batch=4, text_batch=16, unet_batch=8
)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for images, latents and checkpoints")
    parser.add_argument("--out", type=Path, required=True, help="folder for the finished diffusers pipeline")
    parser.add_argument("--vae-minutes", type=float, default=18, help="minutes for the autoencoder")
    parser.add_argument("--text-minutes", type=float, default=3, help="minutes for the text encoder's warm-up")
    parser.add_argument("--minutes", type=float, default=85, help="minutes for the denoiser")
    parser.add_argument("--decoder-minutes", type=float, default=8, help="minutes for the decoder alone, at the end")
    parser.add_argument("--pictures", type=int, default=30000, help="number of images drawn at 128²")
    parser.add_argument("--first-picture", type=int, default=0, help="number (seed) of the first image")
    parser.add_argument("--start-from", type=Path, help="finished pipeline folder to continue from")
    parser.add_argument("--large-pictures", type=int, default=6000, help="number of them that are also drawn at 256²")
    parser.add_argument("--batch", type=int, default=32, help="images per process and step")
    parser.add_argument(
        "--processes", type=int, default=0, help="number of processes; 0: one per CPU core, or one for a GPU"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--export-only", action="store_true", help="write the folder from the existing checkpoints")
    parser.add_argument("--smoke", action="store_true", help="run all stages in about a minute")
    return parser.parse_args()


def adopt(work: Path, folder: Path) -> None:
    """Copy a finished model into ``work``, where every stage looks for it, unless one exists."""
    if not (work / dataset.START).exists():
        shutil.copytree(folder, work / "start.partial", dirs_exist_ok=True)
        (work / "start.partial").rename(work / dataset.START)


def train(work: Path, budget: Budget, processes: int, device: str, seed: int, first: int) -> None:
    """Run the stages, skipping those that are already done."""
    dataset.prepare(work, budget.pictures, budget.large_pictures, processes, first)

    def job(minutes: float, batch: int) -> parallel.Job:
        return parallel.Job(work, minutes, batch, processes, device, seed)

    if not (work / dataset.START).exists():
        parallel.run(autoencoder.train_vae, job(budget.vae, budget.vae_batch))
    if not (work / f"latents-large-{processes - 1}.npy").exists():
        parallel.run(autoencoder.cache_latents, job(0, 0))
    parallel.run(denoiser.warm_text, job(budget.text, budget.text_batch))
    parallel.run(denoiser.train_unet, job(budget.unet, budget.unet_batch))
    if budget.decoder:
        parallel.run(autoencoder.sharpen_decoder, job(budget.decoder, max(1, budget.vae_batch // 4)))


def main() -> None:
    """Train and export."""
    args = arguments()
    processes = args.processes or (1 if args.device.startswith("cuda") else os.cpu_count() or 1)
    budget = Budget(
        args.vae_minutes,
        args.text_minutes,
        args.minutes,
        args.decoder_minutes,
        args.pictures,
        args.large_pictures,
        16,
        128,
        args.batch,
    )
    args.work.mkdir(parents=True, exist_ok=True)
    if args.start_from:
        adopt(args.work, args.start_from)
    if not args.export_only:
        train(
            args.work,
            SMOKE if args.smoke else budget,
            processes,
            args.device,
            args.seed,
            args.first_picture,
        )
    networks, quality = denoiser.load_finished(args.work)
    architecture.export(networks, args.out)
    print(f"wrote {args.out}; the autoencoder's PSNR is {quality:.1f} dB")


if __name__ == "__main__":
    main()
