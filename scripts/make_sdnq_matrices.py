"""Write tests/data/sdnq_matrices.safetensors: small matrices quantized by the package sdnq, and what it decodes them to.

Run with sdnq 0.2.8 and torch (`pip install sdnq` in an environment of its own): `python scripts/make_sdnq_matrices.py`.
Names in the file: `<case>/<type>/x.<part>` and `<case>/<type>/expected`.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file
from sdnq.quantizer import sdnq_quantize_layer_weight

OUT = Path(__file__).resolve().parents[1] / "tests" / "data" / "sdnq_matrices.safetensors"
INTEGERS = [f"{sign}int{bits}" for sign in ("", "u") for bits in range(2, 9)]
FLOATS = ["float8_e4m3fn", "float8_e5m2", "fp7", "fp6", "fp5", "fp4", "fp3", "fp2", "float5_e2m3fnu", "float8_e3m4fn"]
CASES = {
    "rows": ((4, 64), [*INTEGERS, *FLOATS], {"group_size": -1}),
    "groups": ((4, 64), ["uint4", "int5", "int8", "uint8", "float8_e4m3fn"], {"group_size": 16}),
    "tensor": ((4, 64), ["int8"], {"group_size": -2}),
    "correction": ((4, 64), ["uint4", "int8"], {"group_size": 32, "use_svd": True, "svd_rank": 2}),
    "products": (
        (32, 48),
        ["int8", "uint4"],
        {"group_size": -1, "use_quantized_matmul": True, "use_svd": True, "svd_rank": 2},
    ),
    "odd": ((4, 60), ["int5", "int7"], {"group_size": -1}),
}
"""Shape, types and settings. With `products`, matrices are stored transposed."""

tensors: dict[str, torch.Tensor] = {}
torch.manual_seed(0)
for case, (shape, kinds, settings) in CASES.items():
    for kind in kinds:
        decode, state = sdnq_quantize_layer_weight(
            torch.randn(shape), layer_class_name="Linear", weights_dtype=kind, torch_dtype=torch.float32, **settings
        )
        state = {name: value for name, value in state.items() if value is not None}
        others = {name: value for name, value in state.items() if name not in ("weight", "scale")}
        decoded = decode(
            state["weight"],
            state["scale"],
            skip_quantized_matmul=decode.use_quantized_matmul,
            skip_compile=True,
            **others,
        )
        tensors |= {f"{case}/{kind}/x.{name}": value.contiguous() for name, value in state.items()}
        tensors[f"{case}/{kind}/expected"] = decoded.contiguous()
save_file(tensors, OUT)
