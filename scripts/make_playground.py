"""Write the playground: pages that run shipped models in the browser, without Python, a server or a network.

The pages lie in docs/playground; this adds what they load: `weights.js`, the model's weights, words and grammar as one
script (a page opened from disk may load scripts, but not fetch files), one such script for each model of real stories,
and `code.js`, the code of a worker as text (such a page may not start a worker from a file either).
"""

from __future__ import annotations

import argparse
import base64
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers.decoders import ByteLevel
from transformers import PreTrainedTokenizerBase

from diffkit.io import atomic_files
from diffkit.languages.story_language import load_language
from diffkit.model import DiffusionModel, load_with_tokenizer
from diffkit.network.attention import SHARPEST
from diffkit.network.transformer import parameter_count
from diffkit.paths import PRETRAINED

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "playground"
STORIES = (
    PRETRAINED / "tinystories-block",
    PRETRAINED / "tinystories-mdlm",
)  # of real text, the one that the page offers first leading
SETTINGS = (
    "vocab_size mask_token_id hidden_size num_layers num_heads intermediate_size max_length rotary tied block".split()
)  # of a DenoiserConfig, as far as model.js knows them
WORKERS = {  # what runs in a thread of its own, by page
    "training": [
        "model.js", "sample.js", "training/texts.js", "training/gradients.js", "training/network.js",
        "training/train.js", "training/worker.js",
    ],
    "stories": ["model.js", "sample.js", "stories/write.js", "stories/worker.js"],
}  # fmt: skip
PLAIN = {"time": "none", "causal": False, "input_size": 0, "labels": 0}  # what model.js takes for granted


def check_model(model: DiffusionModel, *processes: str) -> None:
    """See that a page that writes as `processes` do can run this model.

    Raises: ValueError for another process, or a network that model.js does not build.
    """
    process = model.config.process["name"]
    if process not in processes:
        raise ValueError(
            f"make_playground: the page reveals masked words, so it expected a model of process "
            f"{' or '.join(map(repr, processes))}, got {process!r}. Try one of data/pretrained, such as tales-mdlm "
            "or, with --stories, tinystories-mdlm."
        )
    for name, expected in PLAIN.items():
        found = getattr(model.denoiser.config, name)
        if found != expected:
            raise ValueError(
                f"make_playground: docs/playground/model.js expected a network with {name}={expected!r}, got "
                f"{name}={found!r}. Train one with this setting, or teach model.js what it means."
            )


def check_words(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises: ValueError for tokens that are no whole words."""
    kind = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["type"]
    if kind != "WordLevel":
        raise ValueError(
            f"make_playground: the page shows one word for each token, so it expected a tokenizer of whole words "
            f"(WordLevel), got one of pieces ({kind})."
        )


def check_pieces(tokenizer: PreTrainedTokenizerBase) -> None:
    """Raises: ValueError for tokens that are not written in the alphabet of bytes."""
    decoder = tokenizer.backend_tokenizer.decoder
    if not isinstance(decoder, ByteLevel):
        raise ValueError(
            f"make_playground: stories/pieces.js expected a tokenizer of bytes (decoder ByteLevel), got {decoder}. "
            "Train one with diffkit data --train-tokenizer."
        )


def packed(model: DiffusionModel, bits: int = 32) -> dict[str, Any]:
    """The network's weights: name, shape and offset (in numbers) of each tensor, and all of them in base64.

    Raises: ValueError for a weight that `bits`, 16 or 32, cannot hold.
    """
    tensors, parts, offset = [], [], 0
    for name, tensor in model.denoiser.state_dict().items():
        numbers = tensor.float().numpy().astype(np.dtype(f"<f{bits // 8}"))  # little-endian, whatever machine this is
        if not np.isfinite(numbers).all():
            raise ValueError(f"make_playground: {name} has numbers that {bits} bits cannot hold.")
        tensors.append({"name": name, "shape": list(numbers.shape), "offset": offset})
        parts.append(numbers.tobytes())
        offset += numbers.size
    return {"bits": bits, "tensors": tensors, "base64": base64.b64encode(b"".join(parts)).decode("ascii")}


def described(name: str) -> dict[str, Any]:
    """A story language as JSON, for language.js: its slots and templates as in the grammar."""
    language = load_language(name)
    grammar = language.grammar
    return {
        "name": name,
        "length": language.length,
        "entropy_nats": language.entropy(),
        "slots": {name: slot._asdict() for name, slot in grammar.slots.items()},
        "templates": [{"text": template.text, "prob": template.prob} for template in grammar.templates],
    }


def settings_of(model: DiffusionModel) -> dict[str, Any]:
    """The shape of the network, as model.js reads it."""
    return {name: getattr(model.denoiser.config, name) for name in SETTINGS} | {"sharpest": SHARPEST}


def contents_of(model_folder: Path) -> dict[str, Any]:
    """Everything the page needs to know of a model. Raises: as load_with_tokenizer and check_model."""
    model, tokenizer = load_with_tokenizer(model_folder)
    check_model(model, "mdlm")
    check_words(tokenizer)
    evaluation = model_folder / "evaluation.json"
    language = described(model.config.language) if model.config.language else None
    shape = model.denoiser.config
    return {
        "name": model_folder.name,
        "config": settings_of(model),
        "length": language["length"] if language else shape.max_length,
        "words": tokenizer.convert_ids_to_tokens(list(range(len(tokenizer)))),
        "mask_id": tokenizer.mask_token_id,
        "eos_id": tokenizer.eos_token_id,
        "pad_id": tokenizer.pad_token_id,
        "parameters": parameter_count(model.denoiser),
        "evaluation": json.loads(evaluation.read_text(encoding="utf-8")) if evaluation.is_file() else None,
        "language": language,
        "weights": packed(model),
    }


def stories_of(model_folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the page of real stories says of a model, and what it loads on request, with the weights in 16 bits.

    Raises: as load_with_tokenizer and check_model, and ValueError for another tokenizer than one of bytes.
    """
    model, tokenizer = load_with_tokenizer(model_folder)
    check_model(model, "block", "mdlm")
    check_pieces(tokenizer)
    weights = packed(model, bits=16)
    ids = {"mask_id": tokenizer.mask_token_id, "eos_id": tokenizer.eos_token_id, "pad_id": tokenizer.pad_token_id}
    pieces = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    length = model.denoiser.config.max_length
    shipped = model_folder / "generation_config.json"  # how it writes where nothing else is asked for
    how = {"order": "random", "temperature": 1.0, "top_p": 1.0}
    own = json.loads(shipped.read_text(encoding="utf-8")) if shipped.is_file() else {}
    how |= {name: value for name, value in own.items() if value is not None}
    about = {"name": model_folder.name, "parameters": parameter_count(model.denoiser), "how": how}
    about |= {"block": model.denoiser.config.block, "megabytes": round(len(weights["base64"]) / 1e6, 1)}
    return about, {"config": settings_of(model), "length": length, **ids, "pieces": pieces, "weights": weights}


def stories_scripts(folders: Sequence[Path]) -> dict[str, str]:
    """The scripts of the page of real stories: one that it always loads, and one for each model."""
    models, scripts = [], {}
    for number, folder in enumerate(folders, 1):
        about, stories = stories_of(folder)
        models.append(about | {"script": f"weights-{number}.js"})
        scripts[f"weights-{number}.js"] = f'"use strict";\nwindow.STORIES = {json.dumps(stories, allow_nan=False)};\n'
    return scripts | {"code.js": script(WORKER_CODE=worker_code("stories"), MODELS=models)}


def listed(name: str) -> dict[str, Any]:
    """A small story language as a list of all its texts with their probabilities, for training/texts.js.

    Raises: ValueError if a sample of 4,096 texts does not hold all there are.
    """
    language = load_language(name)
    texts = language.sample(4096, torch.Generator().manual_seed(0)).unique(dim=0)
    probs = language.log_prob(texts).exp()
    if abs(probs.sum().item() - 1) > 1e-9:
        raise ValueError(f"make_playground: {name!r} has too many texts to list them, {len(texts)} are not all.")
    ids = {"mask_id": language.mask_id, "eos_id": language.eos_id, "pad_id": language.pad_id}
    words = language.tokenizer.convert_ids_to_tokens(list(range(language.vocab_size)))
    return {"texts": texts.tolist(), "probs": probs.tolist(), "words": words, **ids}


def script(**constants: Any) -> str:
    """A classic script that defines constants."""
    lines = [f"const {name} = {json.dumps(value, allow_nan=False)};" for name, value in constants.items()]
    return "\n".join(['"use strict";', *lines, ""])


def worker_code(page: str) -> str:
    """The files of a worker as one text."""
    return "\n".join((PAGE / name).read_text(encoding="utf-8") for name in WORKERS[page])


def write_page(source: Path, out: Path, scripts: dict[str, str]) -> None:
    """Write the files of one page into `out`, and the scripts made for it."""
    with atomic_files(out, last="index.html") as draft:
        for path in source.iterdir():
            if path.suffix in (".html", ".css", ".js") and path.name not in scripts:
                shutil.copyfile(path, draft / path.name)
        for name, text in scripts.items():
            (draft / name).write_text(text, encoding="ascii")


def write_playground(model_folder: Path, out: Path, stories: Sequence[Path] = STORIES) -> None:
    """Write the finished pages into `out`: they open from disk, and from any server, and ask no host for anything.

    Args:   model_folder: a masked diffusion model of whole words, such as data/pretrained/tales-mdlm; stories: models
            of real text, masked or with blocks, for the page of stories, in the order in which it offers them.
    Raises: ValueError for a model that a page cannot run, or no model; OSError if `out` cannot be written.
    """
    weights = script(SHIPPED=contents_of(model_folder))
    of_stories = stories_scripts(stories)
    training = script(WORKER_CODE=worker_code("training"), MICRO=listed("micro"))
    write_page(PAGE, out, {"weights.js": weights})
    write_page(PAGE / "training", out / "training", {"code.js": training})
    write_page(PAGE / "stories", out / "stories", of_stories)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", nargs="?", type=Path, default=ROOT / "site" / "playground", help="folder to write")
    parser.add_argument("--model", type=Path, default=PRETRAINED / "tales-mdlm", help="folder of the model of words")
    parser.add_argument("--stories", type=Path, nargs="+", default=STORIES, help="folders of models of real text")
    arguments = parser.parse_args()
    write_playground(arguments.model, arguments.out, arguments.stories)
    size = sum(path.stat().st_size for path in arguments.out.rglob("*") if path.is_file())
    print(f"{arguments.out / 'index.html'}: open it in a browser ({size / 1e6:.1f} MB with all its pages)")


if __name__ == "__main__":
    main()
