"""diffkit: small diffusion language models, checked against a language whose every answer is known."""

__version__ = "0.1.0"
