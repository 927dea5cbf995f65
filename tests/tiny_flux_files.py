"""Files of a tiny FLUX.1 as people have them: transformer, T5, CLIP-L and VAE apart, a LoRA; and how a server installs them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from tests.server_process import Server

DEV, SCHNELL, KONTEXT, FILL = "Tiny FLUX", "Tiny FLUX schnell", "Tiny FLUX Kontext", "Tiny FLUX Fill"
T5, CLIP, VAE, LORA = "Tiny T5", "Tiny CLIP-L", "Tiny FLUX VAE", "Tiny FLUX style"
PARTS = (T5, CLIP, VAE)
FILES = {name: f"{name}.safetensors" for name in (DEV, SCHNELL, KONTEXT, FILL, VAE, LORA)}
KINDS = {
    CLIP: {"type": "clip_embed", "base": "any", "format": "diffusers", "variant": "large"},
    LORA: {"base": "flux"},
}
"""What has to be stated: CLIP-L, and the base of such a LoRA, are recognized by their widths."""


def make_lora(transformer: Any) -> "dict[str, torch.Tensor]":
    """Return a LoRA for one layer of a transformer, with kohya's names."""
    import torch

    from tests.tiny_models import noise_of

    width = transformer.config.num_attention_heads * transformer.config.attention_head_dim
    layer = "lora_unet_double_blocks_0_img_attn_qkv"
    return {
        f"{layer}.lora_down.weight": noise_of(1, 2, width),
        f"{layer}.lora_up.weight": noise_of(2, 3 * width, 2),
        f"{layer}.alpha": torch.tensor(2.0),
    }


def write_transformer(path: Path, **changes: Any) -> Path:
    """Write a transformer with Black Forest Labs' names."""
    from safetensors.torch import save_file

    from tests.tiny_flux import make_transformer, original_names

    save_file(original_names(make_transformer(**changes).state_dict()), path)
    return path


def write_parts(folder: Path) -> None:
    """Write T5, CLIP-L and the VAE, each as its record class has it on disk."""
    from tests.tiny_models import make_parts
    from tests.tiny_transformers import make_t5

    tokenizer, t5 = make_t5(24)
    t5.save_pretrained(folder / T5 / "text_encoder_2", max_shard_size="2KB")  # in parts, which have an index
    tokenizer.save_pretrained(folder / T5 / "tokenizer_2")
    parts = make_parts()
    for name in ("text_encoder", "tokenizer"):
        parts[name].save_pretrained(folder / CLIP / name)
    write_vae(folder / FILES[VAE])


def write_vae(path: Path, seed: int = 0) -> Path:
    """Write a VAE with diffusers' names."""
    import torch
    from safetensors.torch import save_file

    from tests.tiny_flux import make_vae

    vae = make_vae()
    if seed:
        torch.manual_seed(seed)
        torch.nn.init.normal_(vae.decoder.conv_out.weight, std=0.1)
    save_file(vae.state_dict(), path)
    return path


def write_pipeline(folder: Path, family: str) -> Path:
    """Write the folder of a whole Stable Diffusion 3 (`sd3`) or CogView4 (`cogview4`)."""
    from tests import tiny_transformers
    from tests.tiny_models import make_parts

    if family == "sd3":
        parts = tiny_transformers.make_sd3_parts(make_parts()["tokenizer"])
        return tiny_transformers.save_pipeline(folder, "StableDiffusion3Pipeline", parts)
    return tiny_transformers.save_pipeline(folder, "CogView4Pipeline", tiny_transformers.make_cogview4_parts())


def write_all(folder: Path) -> None:
    """Write every model of FILES and the separate parts."""
    write_transformer(folder / FILES[DEV])
    write_transformer(folder / FILES[KONTEXT], num_layers=1)
    write_transformer(folder / FILES[SCHNELL], guidance_embeds=False)
    write_transformer(folder / FILES[FILL], in_channels=384, out_channels=64)
    write_parts(folder)
    write_lora(folder)


def write_lora(folder: Path) -> None:
    from safetensors.torch import save_file

    from tests.tiny_flux import make_transformer

    save_file(make_lora(make_transformer()), folder / FILES[LORA])


@dataclass
class Library:
    """A folder of models, and their records on a server."""

    server: "Server"
    folder: Path
    models: dict[str, dict[str, Any]] = field(default_factory=dict)

    def install(self, *names: str) -> None:
        """Install models of the folder in place."""
        for name in names:
            self.install_file(self.folder / FILES.get(name, name), {"name": name, **KINDS.get(name, {})})

    def install_file(self, path: Path, body: dict[str, Any]) -> None:
        """Install a model in place and wait for it; `body` has its name and what has to be stated."""
        client, name = self.server.client, body["name"]
        query: dict[str, str | bool] = {"source": str(path), "inplace": True}
        answer = client.post("/api/v2/models/install", params=query, json=body)
        answer.raise_for_status()
        job = f"/api/v2/models/install/{answer.json()['id']}"

        def ended() -> dict[str, Any] | None:
            found: dict[str, Any] = client.get(job).json()
            return found if found["status"] in ("completed", "error", "cancelled") else None

        done = self.server.wait_for(ended, name)
        assert done["status"] == "completed", done
        self.models[name] = done["config_out"]

    def remove(self) -> None:
        """Remove the records; the files stay."""
        while self.models:
            _, record = self.models.popitem()
            self.server.client.delete(f"/api/v2/models/i/{record['key']}").raise_for_status()

    def identifier(self, name: str) -> dict[str, Any]:
        return {key: self.models[name][key] for key in ("key", "hash", "name", "base", "type")}
