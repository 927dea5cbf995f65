"""Components shared by several model families: encoders of text and images, autoencoders, control, upscalers."""
