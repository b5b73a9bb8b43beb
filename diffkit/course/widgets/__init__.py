"""Things to play with in a notebook: few, and quiet until touched."""

try:
    from diffkit.course.widgets.board import InfillingBoard
    from diffkit.course.widgets.dashboard import TrainingDashboard
    from diffkit.course.widgets.explorer import NoiseExplorer
    from diffkit.course.widgets.player import Player, SideBySide
    from diffkit.course.widgets.sampler_lab import SamplerLab
    from diffkit.course.widgets.source import Source, show_source
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        f"diffkit.course.widgets needs {missing.name}: pip install 'diffkit[notebooks]'.", name=missing.name
    ) from missing

__all__ = ["InfillingBoard", "NoiseExplorer", "Player", "SamplerLab", "SideBySide", "Source", "TrainingDashboard"]
__all__ += ["show_source"]
