"""Exercises of notebooks 09 to 17: other methods, speed, scaling, and the comparison of all."""
