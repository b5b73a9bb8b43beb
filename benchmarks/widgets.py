"""Bytes that a player sends to the page: ours, one component, and the same film as plain ipywidgets.

    python benchmarks/widgets.py                       # half a minute on one core

The plain player is Play, a slider and a Stack with one HTML per frame, linked in the browser: what this course had
first. It shows no candidates. Both show the same frames by the shipped models. Prints one table; docs/widgets.md
says what followed from it.
"""

from __future__ import annotations

import json

import ipywidgets as ipw
from ipywidgets.embed import dependency_state
from torch import Generator

from diffkit.course.widgets.player import Player
from diffkit.languages.story_language import load_language
from diffkit.model import load_model
from diffkit.sampling.sampler import denoise_frames

RUNS = {"tales-mdlm": 48, "tales-d3pm-uniform": 32, "tales-diffusion-lm": 64}


def plain(player: Player) -> ipw.Widget:
    """The same frames as plain ipywidgets."""
    last = len(player.frames) - 1
    play = ipw.Play(min=0, max=last, value=0, interval=350, show_repeat=False)
    slider = ipw.IntSlider(min=0, max=last, value=0, description="step")
    stack = ipw.Stack([ipw.HTML(player.page(i)) for i in range(last + 1)], selected_index=0)
    ipw.jslink((play, "value"), (slider, "value"))
    ipw.jslink((slider, "value"), (stack, "selected_index"))
    return ipw.VBox([ipw.HBox([play, slider]), stack])


def sent(widget: ipw.Widget) -> tuple[int, int]:
    """How many models a widget is made of, and their bytes as JSON."""
    models = dependency_state(widget, drop_defaults=False)
    return len(models), len(json.dumps(models, allow_nan=False))


def main() -> None:
    """Print the table."""
    tales = load_language("tales")
    print(f"{'run':20} {'steps':>5} {'plain':>16} {'ours':>16} {'data alone':>10} {'with exact':>10}")
    for name, steps in RUNS.items():
        model = load_model(name)
        process = model.process
        rng, order = Generator().manual_seed(0), "random" if name == "tales-mdlm" else "ancestral"
        frames = list(denoise_frames(process, model, shape=(1, 48), steps=steps, rng=rng, order=order, keep_probs=True))
        player = Player(frames, tales.tokenizer)
        cells = [f"{size / 1000:.0f} kB in {models}" for models, size in (sent(plain(player)), sent(player.controls()))]
        sizes = [f"{len(json.dumps(player.data, allow_nan=False)) / 1000:.0f} kB", "none"]
        if process.predicts_tokens:
            beside = Player(frames, tales.tokenizer, process=process, exact=tales.denoiser(process))
            sizes[1] = f"{len(json.dumps(beside.data, allow_nan=False)) / 1000:.0f} kB"
        print(f"{name:20} {steps:5} {cells[0]:>16} {cells[1]:>16} {sizes[0]:>10} {sizes[1]:>10}")


if __name__ == "__main__":
    main()
