"""A whole model family in one folder: a tiny flow-matching transformer with a CLIP text encoder and an autoencoder."""
