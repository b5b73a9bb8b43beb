"""Drawings for Diffusion-LM and Plaid: points among words, and their bound."""
