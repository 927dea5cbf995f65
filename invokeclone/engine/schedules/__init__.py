"""Noise schedules: which noise levels a denoise run goes through, and the solver between them."""
