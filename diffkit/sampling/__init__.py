"""Samplers: from noise to text."""
