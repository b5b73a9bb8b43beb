"""Runs as pictures and pages: frames, tokens, charts; HTML, SVG and GIF that need nothing else."""
