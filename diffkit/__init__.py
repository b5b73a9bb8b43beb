"""diffkit: small diffusion language models, checked against a language whose every answer is known."""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_DEFINED_IN = {
    "languages.story_language": ["load_language"],
    "processes.schedules": ["get_schedule"],
    "processes.masked": ["MaskedDiffusion", "corrupt"],
    "processes.d3pm": ["D3PM"],
    "processes.sedd": ["SEDD", "UDLM"],
    "processes.hybrid": ["HybridDiffusion"],
    "processes.gaussian.diffusion_lm": ["DiffusionLM"],
    "processes.gaussian.plaid": ["Plaid", "SoftTokenPlaid"],
    "processes.autoregressive": ["Autoregressive"],
    "processes.block": ["BlockDiffusion"],
    "processes.insertion": ["EditFlow", "FlexMDM"],
    "model": ["DiffusionModel", "build_model", "load_model", "load_pretrained"],
    "training.config": ["TrainConfig"],
    "training.trainer": ["fit"],
    "sampling.sampler": ["denoise_frames", "infill", "sample"],
    "sampling.skipping": ["first_hitting"],
    "sampling.remasking": ["remasking"],
    "sampling.parallel": ["confidence_threshold", "entropy_bounded"],
    "evaluation.bounds": ["gap_to_entropy", "nelbo"],
    "evaluation.by_count": ["error_by_count"],
    "evaluation.statistics": ["Estimate"],
    "evaluation.text": ["bound_on_text"],
}
_MODULES = {name: module for module, names in _DEFINED_IN.items() for name in names}
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    """Import a name when it is first asked for, so that `import diffkit` is quick."""
    if name not in _MODULES:
        raise AttributeError(f"module 'diffkit' has no attribute {name!r}")
    value = getattr(import_module(f"diffkit.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
