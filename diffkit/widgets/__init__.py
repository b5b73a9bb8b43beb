"""Things to play with in a notebook: few, and quiet until touched."""

from diffkit.widgets.board import BlankPad
from diffkit.widgets.explorer import NoiseExplorer
from diffkit.widgets.player import Player
from diffkit.widgets.source import Source, show_source

__all__ = ["BlankPad", "NoiseExplorer", "Player", "Source", "show_source"]
