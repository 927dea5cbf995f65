"""Weights that follow from a tensor's name and shape alone, so that everyone makes the same tiny models whatever their library versions.

A matrix has a gain near 1 (standard deviation 1/sqrt(fan in) times a factor by name); norms are near 1, biases and the rest near 0.
"""

import re
import zlib

import numpy as np
import torch

FACTORS = [  # first match wins: what lets prompts have an effect
    (r"decoder\.conv_out\.weight$", 2.0),
    (r"(token_embedding|embed_tokens|shared|word_embeddings)\.weight$", None),  # embeddings: standard deviation 1
    (r"attn2\.to_v\.weight$|attn2\.to_out\.0\.weight$", 1.6),
    (r"time_embed|time_text_embed|t_embedder", 1.0),
]


def name_of(name):
    """Return the name without what differs between versions of a library."""
    return re.sub(r"(^|\.)(text_model|language_model)\.", r"\1", name)


def tensor(name, shape, std=1.0, mean=0.0, salt=""):
    """Return a float32 tensor that follows from `salt`, `name` and `shape`."""
    key = f"{salt}|{name_of(name)}|{tuple(shape)}"
    rng = np.random.RandomState(zlib.crc32(key.encode()))
    return torch.from_numpy(np.asarray(mean + std * rng.standard_normal(tuple(shape)), dtype=np.float32))


def value(name, shape, salt=""):
    """Return the value of a parameter by its kind."""
    if len(shape) <= 1:
        if re.search(r"norm|ln_|layer_norm|gn\b|query_norm|key_norm|q_norm|k_norm", name) and not name.endswith("bias"):
            return tensor(name, shape, 0.05, 1.0, salt)
        return tensor(name, shape, 0.05, 0.0, salt)
    fan = int(np.prod(shape[1:]))
    for pattern, factor in FACTORS:
        if re.search(pattern, name_of(name)):
            return tensor(name, shape, 1.0 if factor is None else factor / fan**0.5, 0.0, salt)
    return tensor(name, shape, 1.0 / fan**0.5, 0.0, salt)


def fill(model, salt="", gain=1.0):
    """Give every parameter of `model` its value; tied ones get the value of the first name. Buffers stay."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            v = value(name, tuple(p.shape), salt)
            p.copy_(v * gain if p.ndim >= 2 and gain != 1.0 and "embed" not in name else v)
    return model.eval()


def certain(vae):
    """Return an encoder without chance: its log variance is -30 everywhere."""
    with torch.no_grad():
        last = getattr(vae, "quant_conv", None)
        last = vae.encoder.conv_out if last is None else last
        half = last.weight.shape[0] // 2
        last.weight[half:].zero_()
        last.bias[half:].fill_(-30)
    return vae
