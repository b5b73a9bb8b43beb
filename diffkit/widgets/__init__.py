"""Things to play with in a notebook: few, and quiet until touched."""

try:
    from diffkit.widgets.board import InfillingBoard
    from diffkit.widgets.dashboard import TrainingDashboard
    from diffkit.widgets.explorer import NoiseExplorer
    from diffkit.widgets.player import Player, SideBySide
    from diffkit.widgets.sampler_lab import SamplerLab
    from diffkit.widgets.source import Source, show_source
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        f"diffkit.widgets needs {missing.name}: pip install 'diffkit[notebooks]'.", name=missing.name
    ) from missing

__all__ = ["InfillingBoard", "NoiseExplorer", "Player", "SamplerLab", "SideBySide", "Source", "TrainingDashboard"]
__all__ += ["show_source"]
