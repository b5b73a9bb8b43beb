"""The one backbone: a small transformer that looks both ways, and the pair of process and network that is saved together."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from diffkit.diffusion import PROCESSES

INIT_STD = 0.02  # of every matrix and embedding; a tied head started at unit variance saturates the softmax
SHARPEST = 12.0  # attention logit of a query and a key that agree fully, at the start: enough to pick one place of many


class DenoiserConfig(PretrainedConfig):
    """Shape of a Denoiser.

    Args:
        vocab_size: V, special tokens included; mask_token_id: its output column is -inf (None: no such column).
        head_size: output channels, V if None.
        hidden_size, num_layers, num_heads: width D, depth, attention heads; intermediate_size: 4 D if None.
        max_length: longest sequence; rotary: rotate queries and keys by position, beside the position embeddings.
        time: how t enters: "none", "sinusoidal" or "table" (added to the tokens), "adaln" (scales and shifts each layer).
        T: length of the time axis; dropout; causal: look left only (the autoregressive twin).
        tied: the head reads with the matrix that wrote, which saves V x D numbers where the vocabulary is large.
    Raises: ValueError for an unknown `time`, or a width that the heads do not divide.
    """

    model_type = "diffkit-denoiser"

    def __init__(
        self,
        vocab_size: int = 165,
        mask_token_id: int | None = None,
        head_size: int | None = None,
        hidden_size: int = 128,
        num_layers: int = 4,
        num_heads: int = 4,
        intermediate_size: int | None = None,
        max_length: int = 48,
        rotary: bool = True,
        time: str = "none",
        T: int = 1000,
        dropout: float = 0.0,
        causal: bool = False,
        tied: bool = True,
        **kwargs: Any,
    ):
        if time not in TIME_EMBEDDINGS and time not in ("none", "adaln"):
            raise ValueError(f"DenoiserConfig: time must be one of {['none', *TIME_EMBEDDINGS, 'adaln']}, got {time!r}.")
        if hidden_size % num_heads or (rotary and hidden_size // num_heads % 2):
            raise ValueError(
                f"DenoiserConfig: hidden_size must be num_heads times a whole, even head size; got {hidden_size} and "
                f"{num_heads}."
            )
        self.vocab_size, self.mask_token_id, self.head_size = vocab_size, mask_token_id, head_size or vocab_size
        self.hidden_size, self.num_layers, self.num_heads = hidden_size, num_layers, num_heads
        self.intermediate_size = intermediate_size or 4 * hidden_size
        self.max_length, self.rotary, self.time, self.T = max_length, rotary, time, T
        self.dropout, self.causal, self.tied = dropout, causal, tied and self.head_size == vocab_size
        super().__init__(**kwargs)


# Sizes of the course. The first three take BERT's vocabulary (30,522 words), nano the language `tales`.
SIZES: dict[str, dict[str, Any]] = {
    "nano": {"hidden_size": 128, "num_layers": 4, "num_heads": 4, "tied": False},
    "tiny": {"hidden_size": 256, "num_layers": 6, "num_heads": 4},
    "small": {"hidden_size": 512, "num_layers": 8, "num_heads": 8},
    "medium": {"hidden_size": 512, "num_layers": 12, "num_heads": 8},
}


def sinusoids(values: Tensor, width: int, longest: float = 10_000.0) -> Tensor:
    """Sines and cosines of each value at `width` / 2 wavelengths from 2 pi to 2 pi `longest`: (N,) -> (N, width)."""
    frequencies = torch.exp(-math.log(longest) * torch.arange(width // 2, device=values.device) / (width // 2))
    angles = values.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], -1)


class SinusoidalTime(nn.Module):
    """(B,) times to (B, D): fixed waves, then a small network that says what they mean."""

    def __init__(self, config: DenoiserConfig):
        super().__init__()
        D = config.hidden_size
        self.width, self.net = D, nn.Sequential(nn.Linear(D, D), nn.SiLU(), nn.Linear(D, D))
        self.scale = 1000 / config.T  # the waves expect times up to about a thousand

    def forward(self, t: Tensor) -> Tensor:
        return self.net(sinusoids(t * self.scale, self.width))


class TableTime(nn.Module):
    """(B,) times to (B, D): one learned row for each whole step, the nearest above for times between."""

    def __init__(self, config: DenoiserConfig):
        super().__init__()
        self.table = nn.Embedding(config.T + 1, config.hidden_size)

    def forward(self, t: Tensor) -> Tensor:
        return self.table(t.ceil().long())


TIME_EMBEDDINGS: dict[str, type[nn.Module]] = {"sinusoidal": SinusoidalTime, "table": TableTime}


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair of channels of (B, H, L, K) by an angle that grows with position (arXiv:2104.09864)."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


class Attention(nn.Module):
    """Multi-head attention over all positions; queries and keys are normalised, which keeps training calm at high rates."""

    def __init__(self, config: DenoiserConfig):
        super().__init__()
        D, K = config.hidden_size, config.hidden_size // config.num_heads
        self.heads, self.causal, self.dropout = config.num_heads, config.causal, config.dropout
        self.query, self.key, self.value, self.out = (nn.Linear(D, D, bias=False) for _ in range(4))
        self.norm_query, self.norm_key = nn.LayerNorm(K, bias=False), nn.LayerNorm(K, bias=False)

    def forward(self, x: Tensor, angles: tuple[Tensor, Tensor] | None) -> Tensor:
        B, L, D = x.shape
        q, k, v = (f(x).view(B, L, self.heads, -1).transpose(1, 2) for f in (self.query, self.key, self.value))
        q, k = self.norm_query(q), self.norm_key(k)  # (B, H, L, K)
        if angles is not None:
            q, k = rotate(q, *angles), rotate(k, *angles)
        dropout = self.dropout if self.training else 0.0
        scale = SHARPEST / q.shape[-1]  # normalised vectors have length sqrt(K)
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=self.causal, scale=scale)
        return self.out(mixed.transpose(1, 2).reshape(B, L, D))


class Block(nn.Module):
    """Attention, then a two-layer network, each on normalised input and added back."""

    def __init__(self, config: DenoiserConfig):
        super().__init__()
        D = config.hidden_size
        self.norm_attention, self.norm_network = nn.LayerNorm(D, bias=False), nn.LayerNorm(D, bias=False)
        self.attention = Attention(config)
        self.network = nn.Sequential(
            nn.Linear(D, config.intermediate_size), nn.GELU(), nn.Linear(config.intermediate_size, D)
        )
        self.dropout = nn.Dropout(config.dropout)
        # AdaLN-zero (arXiv:2212.09748): time sets shift, scale and gate; at the start every gate is 0.
        self.modulation = nn.Linear(D, 6 * D) if config.time == "adaln" else None

    def forward(self, x: Tensor, time: Tensor | None, angles: tuple[Tensor, Tensor] | None) -> Tensor:
        if self.modulation is None or time is None:
            x = x + self.dropout(self.attention(self.norm_attention(x), angles))
            return x + self.dropout(self.network(self.norm_network(x)))
        shift_a, scale_a, gate_a, shift_n, scale_n, gate_n = self.modulation(F.silu(time))[:, None].chunk(6, -1)
        x = x + gate_a * self.dropout(self.attention(self.norm_attention(x) * (1 + scale_a) + shift_a, angles))
        return x + gate_n * self.dropout(self.network(self.norm_network(x) * (1 + scale_n) + shift_n))


class Denoiser(PreTrainedModel):
    """The backbone: noisy tokens and a time in, one vector of `head_size` numbers per position out.

    Positions come as learned embeddings, with rotary angles beside them if asked: on a canvas of masks all tokens look
    alike, so relative positions alone would leave every place with the same prediction.
    """

    config_class = DenoiserConfig
    config: DenoiserConfig
    base_model_prefix = "denoiser"
    selects_positions = True  # forward takes `where`

    def __init__(self, config: DenoiserConfig):
        super().__init__(config)
        D = config.hidden_size
        self.token_embedding = nn.Embedding(config.vocab_size, D)
        self.position_embedding = nn.Embedding(config.max_length, D)
        self.time = TIME_EMBEDDINGS.get(config.time.replace("adaln", "sinusoidal"), lambda _: None)(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(D, bias=False)
        self.head = None if config.tied else nn.Linear(D, config.head_size, bias=False)
        self.head_bias = nn.Parameter(torch.zeros(config.head_size))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=INIT_STD)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
        if isinstance(module, Block) and module.modulation is not None:
            nn.init.zeros_(module.modulation.weight)

    def forward(self, xt: Tensor, t: Tensor | float, where: Tensor | None = None) -> Tensor:
        """Denoise.

        Args:    xt: (B, L) ids; t: (B,) or one time in [0, T], ignored if the model has no time input;
                 where: (B, L) bool, compute the head at these positions only.
        Returns: (B, L, head_size), or (N, head_size) for the N positions of `where`; the MASK column is -inf.
        Raises:  ValueError for a wrong shape, a sequence longer than max_length, or a time outside [0, T].
        """
        self._check(xt)
        x = self.token_embedding(xt) + self.position_embedding.weight[: xt.shape[1]]  # (B, L, D)
        time = None if self.time is None else self.time(self._times(t, xt))  # (B, D)
        if time is not None and self.config.time != "adaln":
            x, time = x + time[:, None], None
        angles = self._angles(xt.shape[1], x) if self.config.rotary else None
        for block in self.blocks:
            x = block(x, time, angles)
        return self._output(x if where is None else x[where])

    def _output(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., head_size)."""
        weight = self.token_embedding.weight if self.head is None else self.head.weight
        bias = self.head_bias
        if self.config.mask_token_id is not None:
            never = torch.arange(len(bias), device=bias.device) == self.config.mask_token_id
            bias = bias.masked_fill(never, -torch.inf)
        return F.linear(self.norm(x), weight, bias)

    def _angles(self, L: int, like: Tensor) -> tuple[Tensor, Tensor]:
        waves = sinusoids(torch.arange(L, device=like.device), self.config.hidden_size // self.config.num_heads)
        cos, sin = waves.to(like.dtype).chunk(2, -1)  # each (L, K / 2)
        return cos, sin

    def _times(self, t: Tensor | float, xt: Tensor) -> Tensor:
        t = torch.as_tensor(t, device=xt.device).expand(len(xt))
        if not ((t >= 0) & (t <= self.config.T)).all():
            raise ValueError(f"Denoiser: t must lie in [0, {self.config.T}], got {t.min():g}..{t.max():g}.")
        return t

    def _check(self, xt: Tensor) -> None:
        if xt.ndim != 2 or xt.is_floating_point():
            raise ValueError(f"Denoiser: xt must be (B, L) integer ids, got {xt.dtype} {tuple(xt.shape)}.")
        if not 1 <= xt.shape[1] <= self.config.max_length:
            raise ValueError(
                f"Denoiser: sequences have 1 to {self.config.max_length} tokens (max_length), got {xt.shape[1]}. Cut the "
                "text into shorter chunks, or build the model with a larger max_length."
            )


class DiffusionConfig(PretrainedConfig):
    """A process and a network: `process` holds the settings of a Process, `denoiser` those of a DenoiserConfig.

    `language` names the story language (language.py) that the model was trained on, None for real text.
    """

    model_type = "diffkit-diffusion"

    def __init__(
        self,
        process: dict[str, Any] | None = None,
        denoiser: dict[str, Any] | None = None,
        language: str | None = None,
        **kwargs: Any,
    ):
        self.process, self.denoiser, self.language = process or {}, denoiser or {}, language
        super().__init__(**kwargs)


class DiffusionModel(PreTrainedModel):
    """A process with its network, saved and loaded as one folder: model(xt, t) -> logits.

    `process` corrupts text and steps back; `denoiser` predicts. The model is a denoiser itself, so a sampler takes it.
    """

    config_class = DiffusionConfig
    config: DiffusionConfig
    base_model_prefix = "model"
    selects_positions = True

    def __init__(self, config: DiffusionConfig):
        super().__init__(config)
        name = config.process.get("name")
        if name not in PROCESSES:
            raise ValueError(f"DiffusionModel: the config's process must be one of {sorted(PROCESSES)}, got {name!r}.")
        self.process = PROCESSES[name].from_settings(config.process)
        self.denoiser = Denoiser(DenoiserConfig(**config.denoiser))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        self.denoiser._init_weights(module)

    def forward(self, xt: Tensor, t: Tensor | float, where: Tensor | None = None) -> Tensor:
        """As Denoiser.forward: (B, L) ids and times to (B, L, V) logits, MASK at -inf."""
        return self.denoiser(xt, t, where)


def build_model(
    process: nn.Module, size: str | dict[str, Any] = "nano", *, language: str | None = None, **settings: Any
) -> DiffusionModel:
    """A fresh model for a process.

    Args:   size: a name from SIZES or a dict of DenoiserConfig settings; `settings` go to DenoiserConfig on top of it.
            language: name of the story language it will be trained on, to be kept with the model.
    Raises: ValueError for an unknown size.
    """
    if isinstance(size, str) and size not in SIZES:
        raise ValueError(f"build_model: the sizes are {sorted(SIZES)}, got {size!r}.")
    shape = SIZES[size] if isinstance(size, str) else size
    described = process.settings()  # type: ignore[operator]
    network = {
        "vocab_size": described["vocab_size"], "mask_token_id": described["mask_id"], "T": described["T"],
        **shape, **settings,
    }  # fmt: skip
    return DiffusionModel(DiffusionConfig(process=described, denoiser=network, language=language))


PRETRAINED = Path(__file__).resolve().parent.parent / "data" / "pretrained"


def load_model(name_or_folder: str | Path) -> DiffusionModel:
    """A trained model, ready to sample: a folder, or the name of one that ships with the project, such as "tales-mdlm".

    Only safetensors are read, never a pickle.
    Raises: FileNotFoundError if there is no such folder; ValueError if it holds no model of ours.
    """
    folder = Path(name_or_folder) if Path(name_or_folder).is_dir() else PRETRAINED / name_or_folder
    if not (folder / "config.json").is_file():
        shipped = sorted(path.name for path in PRETRAINED.glob("*") if (path / "config.json").is_file())
        raise FileNotFoundError(
            f"load_model: {str(name_or_folder)!r} is no folder with a config.json, nor one of the shipped models {shipped}. "
            "Check the path, or train one with `diffkit train`."
        )
    kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
    if kind != DiffusionConfig.model_type:
        raise ValueError(f"load_model: {folder} holds a {kind!r} model, expected {DiffusionConfig.model_type!r}.")
    if not any(folder.glob("*.safetensors")):
        raise ValueError(f"load_model: {folder} has no .safetensors weights; pickled weights are never loaded.")
    with quiet():
        return DiffusionModel.from_pretrained(folder, use_safetensors=True).eval()


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars of transformers: they would be stored in notebooks."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def parameter_count(model: nn.Module) -> int:
    """Number of trained numbers in a model, shared ones once."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


for config_class, model_class in ((DenoiserConfig, Denoiser), (DiffusionConfig, DiffusionModel)):
    AutoConfig.register(config_class.model_type, config_class)
    AutoModel.register(config_class, model_class)
