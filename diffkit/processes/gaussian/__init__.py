"""Diffusion of word vectors with Gaussian noise: Diffusion-LM and Plaid."""
