"""Training and measurement of the tiny Stable Diffusion 1 model that ships inside the package."""
