"""Exercises of notebooks 00 to 08: masked diffusion."""
