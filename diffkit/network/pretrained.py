"""Networks of transformers as denoisers: BERT and its kin as they are, left-to-right models with full attention."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from diffkit.processes.base import without_mask

# Their positions begin after PAD's id.
AFTER_PAD = {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "roberta-prelayernorm"}
NEVER_KEPT = {"auto_map", "quantization_config", "architectures", "dtype", "torch_dtype"}  # code, and what is not ours


@dataclass(frozen=True)
class PretrainedSettings:
    """What a PretrainedDenoiser is built from, as JSON holds it."""

    backbone: dict[str, Any]  # the config of transformers
    vocab_size: int  # V, the tokenizer's; the table may have more rows
    mask_token_id: int
    max_length: int
    start_token_id: int | None = None  # what a left-to-right model reads in front of a text; None: a masked model
    lora: int = 0  # rank of the trained matrices, 0: everything is trained
    anneal: int = 0  # training passes until a left-to-right model sees all of the future
    labels: int = 0  # it has none, and no time either
    time: str = "none"


class PretrainedDenoiser(nn.Module):
    """A masked or a left-to-right language model of transformers as a denoiser: (B, L) ids to (B, L, V) logits.

    A masked model predicts token i at position i. A left-to-right model reads a start token in front of the text, and
    its row of token i - 1 goes on predicting token i (logit shift); its causal attention is lifted, with `anneal`
    gradually in training: one random mask a pass shows a growing share of the future.

    Args:   network: trained; None: one without weights, to load them into.
    Source: arXiv:2410.17891 (DiffuLLaMA), section 3.2, for shift and annealing; arXiv:2106.09685 for LoRA.
    """

    def __init__(self, config: PretrainedSettings, network: PreTrainedModel | None = None):
        super().__init__()
        self.config = config
        self.network = network or _class_of(made := _config_of(config.backbone))._from_config(made)
        if config.lora:
            add_lora(self.network, config.lora)
        self.passes = nn.Buffer(torch.zeros((), dtype=torch.long))  # in training

    def forward(
        self, xt: Tensor, t: Tensor | float, where: Tensor | None = None, cache: Any = None, label: Any = None
    ) -> Tensor:
        """As Denoiser.forward; time enters through the masks alone."""
        if cache is not None or label is not None:
            raise ValueError("PretrainedDenoiser: a pretrained network has no cache and no labels. Leave them out.")
        if xt.shape[1] > self.config.max_length:
            raise ValueError(f"PretrainedDenoiser: at most {self.config.max_length} tokens, got {xt.shape[1]}.")
        start = self.config.start_token_id
        ids = xt.long() if start is None else F.pad(xt.long(), (1, 0), value=start)
        logits = self.network(input_ids=ids, **self._options(ids)).logits[..., : self.config.vocab_size]
        logits = logits if start is None else logits[:, :-1]  # the row of token i - 1 predicts token i
        return without_mask((logits if where is None else logits[where]).float(), self.config.mask_token_id)

    def _options(self, ids: Tensor) -> dict[str, Any]:
        """Full attention for left-to-right models, and positions that do not depend on where PAD stands."""
        L, device, backbone = ids.shape[1], ids.device, self.config.backbone
        if self.config.start_token_id is not None:
            return {"attention_mask": self._mask(L, device), "use_cache": False}
        if backbone["model_type"] in AFTER_PAD:
            return {"position_ids": torch.arange(L, device=device)[None] + self.network.config.pad_token_id + 1}
        return {}

    def _mask(self, L: int, device: torch.device) -> Tensor:
        """(1, 1, L, L), 0 where attention may go and -inf elsewhere: added, as not all networks read bool alike."""
        dtype = self.network.dtype
        full = torch.zeros(1, 1, L, L, dtype=dtype, device=device)
        if not (self.training and self.config.anneal):
            return full
        self.passes.add_(1)
        hidden = torch.rand(L, L, device=device) >= self.passes / self.config.anneal
        return full.masked_fill(hidden.triu(1), -torch.inf)

    @property
    def all_tied_weights_keys(self) -> dict[str, str]:
        """Which weights are one and the same, as transformers asks when it saves and loads a model."""
        return {f"network.{key}": f"network.{same}" for key, same in self.network.all_tied_weights_keys.items()}

    @property
    def blocks(self) -> nn.ModuleList:
        """The layers, which `train.shard` splits."""
        return next(module for module in self.network.modules() if isinstance(module, nn.ModuleList))

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: the network brings its own."""


def add_lora(network: PreTrainedModel, rank: int) -> None:
    """Freeze a network, and train beside each of its matrices (but tables and head) a product of two of this rank."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ValueError(
            "lora needs peft, which is not installed. Run pip install 'diffkit[adapt]', or leave lora out."
        ) from error
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear"), network)


def borrow(
    name_or_folder: str | Path, tokenizer: PreTrainedTokenizerBase, *, max_length: int, lora: int = 0, anneal: int = 0
) -> PretrainedDenoiser:
    """The denoiser made of a language model on the Hub or in a folder; tables grow if the tokenizer has more ids.

    Raises: ValueError for a model of another kind, one without room for the text, or one that still sees no future.
    """
    config = AutoConfig.from_pretrained(name_or_folder, trust_remote_code=False)
    kind, is_masked = _class_of(config), type(config) in MODEL_FOR_MASKED_LM_MAPPING
    start = None if is_masked else next(i for i in (tokenizer.bos_token_id, tokenizer.eos_token_id) if i is not None)
    offset = config.pad_token_id + 1 if config.model_type in AFTER_PAD else 0
    room = config.max_position_embeddings - offset - (start is not None)
    if not 1 <= max_length <= room:
        raise ValueError(f"load_pretrained: {str(name_or_folder)!r} reads at most {room} tokens, got {max_length}.")
    network, info = kind.from_pretrained(
        name_or_folder, config=config, dtype=torch.float32, use_safetensors=True, output_loading_info=True
    )
    if missing := sorted(info["missing_keys"]):
        raise ValueError(f"load_pretrained: {str(name_or_folder)!r} has no {missing[0]}: it is no language model.")
    if len(tokenizer) > network.get_input_embeddings().weight.shape[0]:
        network.resize_token_embeddings(len(tokenizer))  # new rows start at the mean of the others
    settings = PretrainedSettings(
        json.loads(network.config.to_json_string()), len(tokenizer), tokenizer.mask_token_id, max_length, start, lora,
        anneal,
    )  # fmt: skip
    denoiser = PretrainedDenoiser(settings, network)
    check_sees_future(denoiser)
    return denoiser


@torch.no_grad()
def check_sees_future(denoiser: PretrainedDenoiser) -> None:
    """Raise ValueError if another last token changes nothing at the first: then attention is still causal."""
    ids = torch.full((2, min(8, denoiser.config.max_length)), denoiser.config.mask_token_id)
    ids[1, -1] = 0 if denoiser.config.mask_token_id else 1
    first, second = denoiser.eval()(ids, 0.0)[:, 0]
    if ids.shape[1] > 1 and torch.equal(first, second):
        raise ValueError(
            f"load_pretrained: a {denoiser.config.backbone['model_type']!r} model still attends to the left only, "
            "whatever attention mask it is given. Choose another architecture."
        )


def _config_of(backbone: dict[str, Any]) -> PretrainedConfig:
    """A config of transformers from plain settings. Raises ValueError for a kind that transformers does not have."""
    kept = {key: value for key, value in backbone.items() if key not in NEVER_KEPT and "_implementation" not in key}
    return AutoConfig.for_model(**kept)


def _class_of(config: PretrainedConfig) -> Any:
    """The language model of a config: a masked one if there is one, else a left-to-right one."""
    for mapping in (MODEL_FOR_MASKED_LM_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING):
        if type(config) in mapping and not config.is_encoder_decoder:
            return mapping[type(config)]
    raise ValueError(
        f"load_pretrained: {config.model_type!r} is no masked or left-to-right language model of transformers. Choose "
        "one such as BERT, RoBERTa, ModernBERT, GPT-2, Llama or Qwen."
    )
