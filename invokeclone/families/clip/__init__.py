"""CLIP and SigLIP encoders."""
