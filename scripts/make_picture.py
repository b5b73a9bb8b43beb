"""Draw docs/unmasking.svg, the README's moving picture: a real run of a shipped model, as `--save` draws it.

    python scripts/make_picture.py              # the README's story
    python scripts/make_picture.py --seed 2     # another one; --help lists what else can be chosen

The story is what `diffkit sample` writes with the same model and settings. Some frames of it are shown, up to its end.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from diffkit import denoise_frames, load_model
from diffkit.cli.show.picture import reel_of, svg
from diffkit.data.tokenizer import load_tokenizer
from diffkit.io import write_atomic
from diffkit.model import model_folder
from diffkit.sampling.sampler import Frame

ROOT = Path(__file__).resolve().parent.parent
FRAMES = 24
TITLE = "A story appears word by word out of masked tokens"


def story(settings: argparse.Namespace, tokenizer: PreTrainedTokenizerBase) -> list[Frame]:
    """Sample one story, one position a step. Returns: the frames that are shown, cut where the story ends."""
    model = load_model(settings.model)
    start = torch.full((1, model.denoiser.config.max_length), tokenizer.mask_token_id)
    prompt = tokenizer(settings.prompt, add_special_tokens=False, return_tensors="pt")["input_ids"].long()
    start[:, : prompt.shape[1]] = prompt
    steps = int((start == tokenizer.mask_token_id).sum())
    frames = denoise_frames(
        model.process, model, start=start, steps=steps, rng=torch.Generator().manual_seed(settings.seed),
        order="random", temperature=settings.temperature, top_p=settings.top_p,
    )  # fmt: skip
    every = -(-steps // FRAMES)
    shown = [frame for frame in frames if frame.step % every == 0 or frame.step == steps]
    length = int((shown[-1].tokens[0] != tokenizer.eos_token_id).cumprod(0).sum())
    return [frame._replace(tokens=frame.tokens[:, :length]) for frame in shown]


def main() -> None:
    """Sample one story, and write its picture whole or not at all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tinystories-mdlm", help="a masked model: a shipped one, or a folder")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--prompt", default="Once upon a time", help="how the story begins; may be empty")
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--top-p", type=float, default=0.9)
    settings = parser.parse_args()
    tokenizer = load_tokenizer(model_folder(settings.model))
    frames = story(settings, tokenizer)
    fixed = frames[0].tokens[0] != tokenizer.mask_token_id
    target = ROOT / "docs" / "unmasking.svg"
    write_atomic(target, svg(reel_of(frames, tokenizer, fixed), TITLE))
    print(f"{target.relative_to(ROOT)}: {tokenizer.decode(frames[-1].tokens[0])}")


if __name__ == "__main__":
    main()
