"""Checks for the exercises of the notebooks, one file for each notebook; every check returns a Verdict."""
