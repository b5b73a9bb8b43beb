"""Noise schedules and diffusion processes."""
