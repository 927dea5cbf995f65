"""Installation hints for missing libraries, for the log and for failed items."""

INSTALL = {
    "torch": "torch",
    "diffusers": "diffusers",
    "transformers": "transformers",
    "accelerate": "accelerate",
    "compel": "'invokeclone[nodes]'",
    "torchsde": "torchsde",
    "cv2": "'invokeclone[nodes]'",
    "torchvision": "'invokeclone[nodes]'",
    "spandrel": "'invokeclone[nodes]'",
    "controlnet_aux": "'invokeclone[nodes]'",
    "einops": "'invokeclone[nodes]'",
    "matplotlib": "'invokeclone[nodes]'",
    "requests": "'invokeclone[nodes]'",
}
"""Pip requirement by module: a library that models need, or the extra for node packs."""


def advice(error: BaseException) -> str | None:
    """Return how to install the library that `error` reports as missing; None for any other error."""
    if not isinstance(error, ModuleNotFoundError) or error.name is None:
        return None
    module = error.name.partition(".")[0]
    if module not in INSTALL:
        return None
    return f"{module} is not installed: `python -m pip install {INSTALL[module]}`, then restart the server"
