"""diffkit: small diffusion language models, checked against a language whose every answer is known."""

from diffkit.evaluation.bounds import nelbo
from diffkit.languages.story_language import load_language
from diffkit.model import DiffusionModel, load_model
from diffkit.processes.masked import MaskedDiffusion, corrupt
from diffkit.processes.schedules import get_schedule
from diffkit.sampling.sampler import denoise_frames, infill

__version__ = "0.1.0"
__all__ = [
    "DiffusionModel", "MaskedDiffusion", "corrupt", "denoise_frames", "get_schedule", "infill", "load_language",
    "load_model", "nelbo",
]  # fmt: skip
