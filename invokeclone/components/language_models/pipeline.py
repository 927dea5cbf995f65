"""Text generation with language models, with or without an image: encode, generate, decode."""

import re
from collections.abc import Callable
from typing import Any

import torch
from PIL import Image

from invokeclone.engine.loaded import device_of as device_of
from invokeclone.kit.files.image_modes import convert

TokenCallback = Callable[[int], None]
"""Called with the number of tokens generated so far; may raise to stop the model."""

TEMPERATURE = 0.7
TOP_P = 0.9
DESCRIPTION_TOKENS = 400
_THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL)
_TURN = "<|im_start|>"


def encode(tokenizer: Any, prompt: str, system_prompt: str, device: torch.device) -> torch.Tensor:
    """Return the tokens (1, n) of a conversation that asks for an answer, in the model's own template if it has one."""
    text = _conversation(tokenizer, prompt, system_prompt)
    tokens: torch.Tensor = tokenizer(text, return_tensors="pt", add_special_tokens=not text.startswith(_TURN))[
        "input_ids"
    ]
    return tokens.to(device)


def _conversation(tokenizer: Any, prompt: str, system_prompt: str) -> str:
    plain = "\n\n".join(part for part in (system_prompt, prompt) if part)
    if not getattr(tokenizer, "chat_template", None):
        return f"{plain}\n\n"
    user = [{"role": "user", "content": prompt}]
    system = [{"role": "system", "content": system_prompt}] if system_prompt else []
    template = {"tokenize": False, "add_generation_prompt": True}
    try:
        return str(tokenizer.apply_chat_template([*system, *user], **template))
    except Exception:  # noqa: BLE001  (some templates raise their own errors for a system message)
        return str(tokenizer.apply_chat_template([{"role": "user", "content": plain}], **template))


def encode_image(model: Any, processor: Any, image: Image.Image, device: torch.device) -> torch.Tensor:
    """Return the embeddings of an image, (n, width), one row per image token of the prompt."""
    inputs = processor(images=[convert(image, "RGB")], return_tensors="pt")
    output = model.get_image_features(
        pixel_values=inputs["pixel_values"].to(device, model.dtype),
        image_sizes=torch.as_tensor(inputs["image_sizes"]),
        vision_feature_layer=model.config.vision_feature_layer,
        vision_feature_select_strategy=model.config.vision_feature_select_strategy,
    )
    features = getattr(output, "pooler_output", output)
    return torch.cat(list(features), dim=0) if isinstance(features, (list, tuple)) else features.flatten(0, -2)


def write(
    model: Any,
    tokenizer: Any,
    prompt: str,
    system_prompt: str,
    *,
    max_tokens: int,
    seed: int,
    device: torch.device,
    on_tokens: TokenCallback,
) -> str:
    """Return the model's answer to a prompt; deterministic for a seed on one machine."""
    with torch.inference_mode():
        # 1. tokens of the conversation
        tokens = encode(tokenizer, prompt, system_prompt, device)
        # 2. generate token by token
        with _fork_rng(seed, device):
            generated = model.generate(
                tokens,
                attention_mask=torch.ones_like(tokens),
                **_generation_options(tokenizer, max_tokens, on_tokens),
                do_sample=True,
                temperature=TEMPERATURE,
                top_p=TOP_P,
            )
        # 3. decode to text
        return _text(tokenizer, generated[0, tokens.shape[1] :])


def describe(
    model: Any,
    tokenizer: Any,
    processor: Any,
    image: Image.Image,
    instruction: str,
    *,
    device: torch.device,
    on_tokens: TokenCallback,
) -> str:
    """Return the model's description of an image."""
    with torch.inference_mode():
        # 1. embeddings of the image
        image_features = encode_image(model, processor, image, device)
        # 2. embeddings of the conversation, with the image inserted
        before, after = _text_around_image(tokenizer, instruction)
        embed = model.get_input_embeddings()
        parts = [
            embed(_tokens(tokenizer, before, device)),
            image_features[None].to(model.dtype),
            embed(_tokens(tokenizer, after, device)),
        ]
        embedded = torch.cat(parts, dim=1)
        # 3. generate greedily, token by token
        generated = model.generate(
            inputs_embeds=embedded,
            attention_mask=torch.ones(embedded.shape[:2], dtype=torch.long, device=device),
            **_generation_options(tokenizer, DESCRIPTION_TOKENS, on_tokens),
            do_sample=False,
        )
        # 4. decode to text
        return _text(tokenizer, generated[0])


def _text_around_image(tokenizer: Any, instruction: str) -> tuple[str, str]:
    """Return the text before and after the image, in the model's chat template if its tokenizer has one."""
    if _TURN in tokenizer.get_vocab():
        return f"{_TURN}user ", f"\n{instruction}<|im_end|>{_TURN}assistant\n"
    return "", f"\n{instruction}\n"


def _tokens(tokenizer: Any, text: str, device: torch.device) -> torch.Tensor:
    return torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]], dtype=torch.long, device=device)


def _generation_options(tokenizer: Any, max_tokens: int, on_tokens: TokenCallback) -> dict[str, Any]:
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return {"max_new_tokens": max_tokens, "pad_token_id": padding, "streamer": _Counter(on_tokens)}


class _Counter:
    """Token counter passed to `generate` as a streamer, which receives the prompt first."""

    def __init__(self, on_tokens: TokenCallback) -> None:
        self._on_tokens = on_tokens
        self._calls = 0

    def put(self, _tokens: Any) -> None:
        """Count a token."""
        if self._calls:
            self._on_tokens(self._calls)
        self._calls += 1

    def end(self) -> None:
        """Do nothing: all tokens have been reported."""


def _fork_rng(seed: int, device: torch.device) -> Any:
    """Isolate the global random number generator, for code that uses no other."""
    from contextlib import contextmanager

    @contextmanager
    def seed_scope() -> Any:
        devices = [device] if device.type not in {"cpu", "mps"} else []
        with torch.random.fork_rng(devices, device_type=device.type if devices else "cuda"):
            torch.manual_seed(seed)
            yield

    return seed_scope()


def _text(tokenizer: Any, tokens: torch.Tensor) -> str:
    return _THOUGHT.sub("", str(tokenizer.decode(tokens, skip_special_tokens=True))).strip()
