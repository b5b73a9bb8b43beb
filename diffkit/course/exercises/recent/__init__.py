"""Exercises of notebooks 18 to 22."""
