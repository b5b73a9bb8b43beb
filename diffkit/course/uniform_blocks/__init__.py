"""Exact references and judges of notebook 18_uniform_blocks."""
