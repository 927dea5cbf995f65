"""Libraries that are not installed: what to do about it, for the log and for the item that needed one."""

INSTALL = {
    "torch": "torch",
    "diffusers": "diffusers",
    "transformers": "transformers",
    "accelerate": "accelerate",
    "compel": "compel",
    "torchsde": "torchsde",
    "cv2": "'invokeclone[nodes]'",
    "torchvision": "'invokeclone[nodes]'",
    "spandrel": "'invokeclone[nodes]'",
    "controlnet_aux": "'invokeclone[nodes]'",
    "einops": "'invokeclone[nodes]'",
    "matplotlib": "'invokeclone[nodes]'",
    "requests": "'invokeclone[nodes]'",
}
"""What installs a module: a library that models need, or the extra for node packs."""


def advice(error: BaseException) -> str | None:
    """Return how to install the library whose absence `error` reports; None for any other error."""
    if not isinstance(error, ModuleNotFoundError) or error.name is None:
        return None
    module = error.name.partition(".")[0]
    if module not in INSTALL:
        return None
    return f"{module} is not installed: `python -m pip install {INSTALL[module]}`, then start the server again"
