"""Make a run, or one of its checkpoints, a model that ships: weights in 16 bits, tokenizer, training curve.

    python scripts/ship_model.py runs/stories/mdlm data/pretrained/tinystories-mdlm
    python scripts/ship_model.py runs/stories/mdlm early --checkpoint runs/stories/mdlm/checkpoints/step-0000500
    python scripts/ship_model.py runs/longer longer --after data/pretrained/tinystories-mdlm

A checkpoint's averaged weights are taken. The curve keeps one step in fifty, and those that were validated; that of a
run that went on from a shipped model's weights follows the model's, its steps counted on.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from diffkit.cli.train import read_log
from diffkit.data.tokenizer import load_tokenizer
from diffkit.io import json_text, write_atomic
from diffkit.model import DiffusionModel, load_model, quiet
from diffkit.training.checkpoint import load_checkpoint

EVERY = 50  # steps between the lines that are kept of a training curve


def averaged(model: DiffusionModel, checkpoint: Path) -> DiffusionModel:
    """A run's model with the averaged weights of one of its checkpoints."""
    tensors, _ = load_checkpoint(checkpoint)
    average = {name.removeprefix("average."): value for name, value in tensors.items() if name.startswith("average.")}
    model.load_state_dict(average, strict=False)
    return model


def thinned(records: list[dict[str, Any]], done: int) -> list[dict[str, Any]]:
    """Those that are worth keeping, their steps counted from `done`."""
    kept = [r for r in records if r["step"] in (1, records[-1]["step"]) or not r["step"] % EVERY or r["validation"]]
    rounded = [{k: float(f"{v:.5g}") if isinstance(v, float) else v for k, v in r.items()} for r in kept]
    return [record | {"step": done + record["step"]} for record in rounded]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder that `diffkit train` wrote")
    parser.add_argument("folder", type=Path, help="where the model goes")
    parser.add_argument("--checkpoint", type=Path, help="one of the run's checkpoints, instead of its end")
    parser.add_argument("--after", type=Path, help="folder of the shipped model whose weights the run started from")
    options = parser.parse_args()
    before = read_log(options.after) if options.after else []
    records = before + thinned(read_log(options.run), before[-1]["step"] if before else 0)
    model = load_model(options.run)
    if options.checkpoint:
        model = averaged(model, options.checkpoint)
    with quiet():
        model.half().save_pretrained(options.folder)
    load_tokenizer(options.run).save_pretrained(options.folder)
    write_atomic(options.folder / "training.jsonl", "".join(f"{json_text(record)}\n" for record in records))


if __name__ == "__main__":
    main()
