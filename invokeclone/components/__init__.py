"""What several model families share: encoders of text and images, autoencoders, decoders: a folder each."""
