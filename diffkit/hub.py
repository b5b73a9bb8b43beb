"""Models on the Hugging Face Hub: with a card, by name and revision; and the models that MDLM's authors published."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from huggingface_hub import HfApi, ModelCardData, snapshot_download
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from diffkit.model import WRAPPED, DiffusionConfig, DiffusionModel, check_tokenizer, model_folder, quiet
from diffkit.network.transformer import parameter_count
from diffkit.processes.masked import MaskedDiffusion

FILES = ["*.json", "*.safetensors", "merges.txt", "vocab.txt", "*.md"]  # settings, weights, tokenizers, card; no pickle
NAMES = {  # of MDLM's weights, and ours
    r"^backbone\.": "", r"^vocab_embed\.embedding": "token_embedding.weight", r"^sigma_map\.mlp": "time",
    r"^output_layer\.norm_final": "norm", r"^output_layer\.linear": "head", r"^output_layer\.adaLN_": "",
    r"\.norm1\.": ".norm_attention.", r"\.norm2\.": ".norm_network.", r"\.mlp\.": ".network.",
    r"\.attn_": ".", r"\.adaLN_": ".",
}  # fmt: skip
SHAPE = {
    "vocab_size": "vocab_size", "hidden_dim": "hidden_size", "cond_dim": "cond_size", "n_blocks": "num_layers",
    "n_heads": "num_heads", "model_length": "max_length", "dropout": "dropout",
}  # fmt: skip
CARD = """---
{metadata}
---
# {name}

A diffusion language model made with diffkit: process `{process}`, {parameters:,} parameters, a vocabulary of
{vocab_size:,}, texts of {length} tokens. Read it with

```python
from diffkit import load_model
from diffkit.data.tokenizer import load_tokenizer
from diffkit.hub import fetch

folder = fetch("{repo_id}")
model, tokenizer = load_model(folder), load_tokenizer(folder)
```
{evaluation}"""


def fetch(repo_id: str, revision: str | None = None) -> Path:
    """The folder, in the cache, with a model of the Hub: settings, safetensors, tokenizer, card. Nothing else comes.

    Args:   repo_id: "owner/name"; revision: a branch, a tag or a commit.
    Raises: OSError if there is no such model, or no network and nothing in the cache.
    """
    try:
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=FILES))
    except Exception as error:  # of many kinds, which all mean this
        raise OSError(
            f"fetch: {repo_id!r} could not be fetched from the Hub ({type(error).__name__}: {error}). Check the name "
            "and the revision, or give a local folder."
        ) from error


def card(model: DiffusionModel, repo_id: str, evaluation: Mapping[str, float] | None = None, **metadata: Any) -> str:
    """A model card: metadata as the Hub reads it, what the model is, how to load it, and how good it is.

    Args: evaluation: figures by name, such as {"bound, nats a token": 2.98};
          metadata: further fields, such as license="mit" or datasets="roneneldan/TinyStories".
    """
    about: dict[str, Any] = {
        "library_name": "diffkit",
        "pipeline_tag": "text-generation",
        "tags": ["diffusion", model.process.name],
    }
    rows = "".join(f"| {name} | {value:.4g} |\n" for name, value in (evaluation or {}).items())
    table = f"\n## Evaluation\n\n| | |\n|---|---|\n{rows}" if rows else ""
    return CARD.format(
        metadata=ModelCardData(**about | metadata).to_yaml(), name=repo_id.rpartition("/")[2], repo_id=repo_id,
        process=model.process.name, parameters=parameter_count(model), vocab_size=model.process.vocab_size,
        length=model.denoiser.config.max_length, evaluation=table,
    )  # fmt: skip


def push_to_hub(
    model: DiffusionModel, tokenizer: PreTrainedTokenizerBase, repo_id: str, *, private: bool = True,
    revision: str | None = None, evaluation: Mapping[str, float] | None = None, **metadata: Any,
) -> str:  # fmt: skip
    """Upload a model, its tokenizer and a card as one commit, and return its address. See `card` for the last two.

    The token is that of `hf auth login`, or $HF_TOKEN. A new repository is private unless you say otherwise.
    """
    check_tokenizer(model, tokenizer)
    api = HfApi()
    api.create_repo(repo_id, private=private, exist_ok=True)
    with TemporaryDirectory() as draft, quiet():
        model.save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        Path(draft, "README.md").write_text(card(model, repo_id, evaluation, **metadata), encoding="utf-8")
        return str(api.upload_folder(folder_path=draft, repo_id=repo_id, revision=revision))


@torch.no_grad()
def load_mdlm(name_or_folder: str | Path, revision: str | None = None) -> DiffusionModel:
    """A published model of MDLM's authors, such as kuleshov-group/mdlm-owt, as one of ours.

    Their tokenizer is GPT-2's with MASK as one more id: load it with transformers, set its PAD to its EOS, and
    add `mask_token`. Trained with log-linear noise, which is the schedule "linear" here, in continuous time.

    Raises: ValueError unless the folder holds safetensors that fit its config.json; OSError as `fetch`.
    Source: arXiv:2406.07524.
    """
    folder = model_folder(name_or_folder)
    folder = folder if (folder / "config.json").is_file() else fetch(str(name_or_folder), revision)
    found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    lacking = sorted({*SHAPE} - {*found}) + ([] if any(folder.glob("*.safetensors")) else ["weights"])
    if lacking:
        raise ValueError(f"load_mdlm: {folder} is no model of MDLM in safetensors: it lacks {', '.join(lacking)}.")
    shape = {ours: found[theirs] for theirs, ours in SHAPE.items()}
    shape |= {"mask_token_id": shape["vocab_size"] - 1, "time": "sigma" if found.get("time_conditioning") else "none"}
    process = MaskedDiffusion(shape["vocab_size"], shape["mask_token_id"], "linear", weight="continuous")
    model = DiffusionModel(
        DiffusionConfig(process=process.settings(), denoiser={"network": "dit", "T": process.T} | shape)
    )
    weights: dict[str, Tensor] = {}
    for file in folder.glob("*.safetensors"):
        weights |= {_renamed(name): value for name, value in load_file(file).items() if "rotary" not in name}
    try:
        model.denoiser.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"load_mdlm: the weights of {folder} do not fit its config.json: {error}") from error
    return model.eval()


def _renamed(name: str) -> str:
    """The name of a weight of MDLM in our network."""
    for theirs, ours in ({WRAPPED: ""} | NAMES).items():
        name = re.sub(theirs, ours, name)
    return name
