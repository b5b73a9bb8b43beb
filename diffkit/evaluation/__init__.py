"""Bounds and sample statistics, beside the exact values."""
