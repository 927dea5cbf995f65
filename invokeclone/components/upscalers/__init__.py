"""Image-to-image models, such as upscalers."""
