"""Create a LoRA and a ControlNet for the embedded model, from generated captions and images: the tests' adapters.

Run from the repository's root: ``python scripts/train_adapters.py --out tests/data/embedded_adapters``. On one CPU core
the LoRA, which is computed, takes seconds, and the ControlNet 3 minutes. The LoRA makes every figure purple, whatever
color the prompt names. The ControlNet puts a figure where its image, white on black, has the silhouette.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("OMP_NUM_THREADS", "1")
# Otherwise glibc returns large tensors' memory to the system after every operation.
os.environ.setdefault("MALLOC_MMAP_THRESHOLD_", str(2**30))
os.environ.setdefault("MALLOC_TRIM_THRESHOLD_", str(2**34))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from safetensors.torch import save_file
from torch.nn import functional

from scripts.embedded.architecture import LATENT_SCALE, Networks, build_scheduler, load_networks
from scripts.embedded.autoencoder import as_tensor
from scripts.embedded.dataset import encode
from scripts.embedded.denoiser import SHORT, add_noise, time_steps
from scripts.embedded.drawing import draw
from scripts.embedded.figures import SHAPES, Picture, shape_mask
from scripts.embedded.grammar import distinct, imagine
from scripts.embedded.measure import WORDINGS

if TYPE_CHECKING:
    from collections.abc import Callable

MODEL = Path(__file__).resolve().parents[1] / "invokeclone" / "families" / "stable_diffusion" / "embedded" / "model"
COLOR = "purple"
SIDE = 128  # pixels
RANK = 16
RIDGE = 1e-4  # relative to the mean variance of the text
BATCH = 8
CONTROLNET_RATE = 1.5e-3
WARM_UP = 50  # steps over which the learning rate rises
DROPPED = 0.1  # captions replaced by the empty one, for classifier-free guidance
HIGH_NOISE = 0.5  # exponent of the timesteps' distribution: layout is determined early
LAYERS = ("attn2.to_k", "attn2.to_v")  # where the UNet attends to the text
CONDITIONING_CHANNELS = (4, 8, 16, 16)


def plain_picture(number: int, background: str = "plain") -> Picture:
    """Generate one plain shape on one color."""
    attempt = 0
    while True:
        picture = imagine(f"adapters {number} {attempt}", "single")
        if picture.things[0].kind in SHAPES and background in (picture.background, ""):
            return picture
        attempt += 1


def caption_pair(number: int) -> tuple[str, str]:
    """Describe one plain shape twice: in another color than purple, and in purple."""
    rng = random.Random(f"adapters purple {number}")
    kind, ground, wording = rng.choice(SHAPES), distinct(rng, COLOR), rng.choice(WORDINGS)
    named, purple = (
        wording.format(object=f"{name} {kind}", ground=ground).replace("a orange", "an orange")
        for name in (distinct(rng, ground, COLOR), COLOR)
    )
    return named, purple


def picture_at_any_location(number: int) -> Picture:
    """Generate one plain shape at any location, which its captions do not mention."""
    rng = random.Random(f"adapters placed {number}")
    picture = plain_picture(number, "")
    radius = rng.uniform(0.16, 0.3)
    reach = 0.48 - radius
    thing = replace(
        picture.things[0],
        x=0.5 + rng.uniform(-reach, reach),
        y=0.5 + rng.uniform(-reach, reach),
        radius=radius,
    )
    captions = tuple(
        " ".join(word for word in caption.split() if word not in ("big", "large", "small", "little", "tiny"))
        for caption in picture.captions
    )
    return replace(picture, things=(thing,), captions=captions)


@torch.no_grad()
def encode_pictures(networks: Networks, pictures: list[Picture]) -> torch.Tensor:
    """Return the scaled latents of pictures, (n, 4, 16, 16)."""
    drawn = as_tensor(np.stack([np.asarray(draw(picture, SIDE)) for picture in pictures]))
    return torch.cat([networks.vae.encode(part).latent_dist.mean for part in drawn.split(32)]) * LATENT_SCALE


@torch.no_grad()
def encode_captions(networks: Networks, captions: list[str]) -> torch.Tensor:
    """Return the embeddings of captions, (n, 77, 128)."""
    tokens = torch.from_numpy(encode(networks.tokenizer, captions))
    return torch.cat([networks.text(part).last_hidden_state for part in tokens.split(64)])


def make_lora(networks: Networks, count: int = 1500) -> dict[str, torch.Tensor]:
    """Return the LoRA's tensors by kohya's names. It makes the UNet treat every caption as if it named purple.

    Reduced-rank regression (Izenman 1975): of all changes of the given rank to a layer, it is the one whose outputs
    for captions of any color are nearest to the layer's present outputs for the same captions with "purple".
    """
    named, purple = zip(*(caption_pair(number) for number in range(count)), strict=True)
    # Captions that already name purple, or nothing, must not change.
    inputs = encode_captions(networks, [*named, *purple[: count // 5], ""])[:, :SHORT].flatten(0, 1).double()
    targets = encode_captions(networks, [*purple, *purple[: count // 5], ""])[:, :SHORT].flatten(0, 1).double()
    covariance = inputs.T @ inputs
    covariance += RIDGE * covariance.diagonal().mean() * torch.eye(len(covariance), dtype=torch.float64)
    change = torch.linalg.solve(
        covariance, inputs.T @ (targets - inputs)
    ).T  # change of the text, one matrix for all layers
    root = torch.linalg.cholesky(covariance)
    tensors = {}
    for name, layer in networks.unet.named_modules():
        if name.endswith(LAYERS):
            left, values, right = torch.linalg.svd(layer.weight.double() @ change @ root, full_matrices=False)
            scale = values[:RANK].sqrt()
            down = scale[:, None] * torch.linalg.solve_triangular(root, right[:RANK], upper=False, left=False)
            flat = "lora_unet_" + name.replace(".", "_")
            tensors[f"{flat}.lora_down.weight"] = down.contiguous()
            tensors[f"{flat}.lora_up.weight"] = (left[:, :RANK] * scale).contiguous()
            tensors[f"{flat}.alpha"] = torch.tensor(float(RANK))
    return tensors


def fit(
    parameters: list[torch.nn.Parameter],
    rate: float,
    minutes: float,
    loss_of: Callable[[np.random.Generator], torch.Tensor],
) -> None:
    """Train parameters until the minutes of CPU time are used up; the learning rate falls linearly to zero."""
    optimizer = torch.optim.AdamW(parameters, rate, weight_decay=0.01)
    rng = np.random.default_rng(0)
    started, step, recent = time.process_time(), 0, 1.0
    while (fraction := (time.process_time() - started) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / WARM_UP) * min(1.0, (1 - fraction) / 0.6)
        loss = loss_of(rng)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        recent = 0.98 * recent + 0.02 * float(loss.detach())
        step += 1
        if step % 50 == 0:
            print(f"step {step} at {fraction:.0%}: loss {recent:.4f}", flush=True)
    print(f"{step} steps, loss {recent:.4f}", flush=True)


def build_controlnet(unet: UNet2DConditionModel) -> ControlNetModel:
    """Build a ControlNet initialized with the UNet's weights; without attention it is half as large."""
    controlnet = ControlNetModel(
        down_block_types=("DownBlock2D",) * 4,
        mid_block_type="UNetMidBlock2D",
        block_out_channels=unet.config.block_out_channels,
        layers_per_block=unet.config.layers_per_block,
        cross_attention_dim=unet.config.cross_attention_dim,
        attention_head_dim=unet.config.attention_head_dim,
        norm_num_groups=unet.config.norm_num_groups,
        conditioning_embedding_out_channels=CONDITIONING_CHANNELS,
    )
    state = controlnet.state_dict()
    shared = {
        name: weight
        for name, weight in unet.state_dict().items()
        if name in state and state[name].shape == weight.shape
    }
    controlnet.load_state_dict(shared, strict=False)
    return controlnet


def train_controlnet(networks: Networks, minutes: float, count: int) -> ControlNetModel:
    """Return the trained ControlNet in half precision."""
    torch.manual_seed(2)
    pictures = [picture_at_any_location(number) for number in range(count)]
    words = random.Random(2)
    latents = encode_pictures(networks, pictures)
    embeds = encode_captions(networks, ["", *(words.choice(picture.captions) for picture in pictures)])
    things = [picture.things[0] for picture in pictures]
    masks = [np.asarray(shape_mask(thing.kind, thing.x, thing.y, thing.radius, SIDE)) for thing in things]
    silhouettes = torch.from_numpy(np.stack(masks))
    controlnet, unet = build_controlnet(networks.unet).train(), networks.unet
    signal = build_scheduler().alphas_cumprod

    def loss_of(rng: np.random.Generator) -> torch.Tensor:
        rows = rng.integers(count, size=BATCH)
        texts = embeds[np.where(rng.random(BATCH) < DROPPED, 0, 1 + rows)]
        times = time_steps(BATCH, HIGH_NOISE, rng)
        noisy, target = add_noise(latents[rows], times, signal)
        image = silhouettes[rows].float().div(255)[:, None].expand(-1, 3, -1, -1)
        down, mid = controlnet(noisy, times, texts, image, return_dict=False)
        residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
        return functional.mse_loss(unet(noisy, times, encoder_hidden_states=texts, **residuals).sample, target)

    fit(list(controlnet.parameters()), CONTROLNET_RATE, minutes, loss_of)
    return controlnet.eval().half()


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for color.safetensors and placement/")
    parser.add_argument("--model", type=Path, default=MODEL, help="pipeline folder to train for")
    parser.add_argument("--only", choices=("lora", "controlnet"), help="create only one of the two")
    parser.add_argument("--minutes", type=float, default=3, help="CPU time for the ControlNet")
    parser.add_argument("--images", type=int, default=1000, help="images drawn for the ControlNet")
    return parser.parse_args()


def main() -> None:
    """Create both and save them in half precision."""
    options = arguments()
    torch.set_num_threads(1)
    networks = load_networks(options.model)
    for network in (networks.vae, networks.text, networks.unet):
        network.eval().requires_grad_(False)
    options.out.mkdir(parents=True, exist_ok=True)
    if options.only != "controlnet":
        tensors = make_lora(networks)
        save_file({name: tensor.half() for name, tensor in tensors.items()}, options.out / "color.safetensors")
    if options.only != "lora":
        controlnet = train_controlnet(networks, options.minutes, options.images)
        controlnet.save_pretrained(options.out / "placement")
    for path in options.out.rglob("*.safetensors"):
        path.chmod(0o644)
        print(f"wrote {path}, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
