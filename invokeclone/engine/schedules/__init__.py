"""Noise schedules: the noise levels of a denoise run and the solver for its steps."""
