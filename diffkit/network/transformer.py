"""The one backbone: a small transformer that looks both ways."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PretrainedConfig, PreTrainedModel

from diffkit.network.attention import Block, block_causal_mask, two_stream_mask
from diffkit.network.cache import KeyValueCache
from diffkit.processes.schedules import MOST_STEPS

LARGEST = {  # beyond, a config is taken to be damaged and refused before memory is allocated
    "vocab_size": 2**24, "hidden_size": 2**16, "num_layers": 1000, "num_heads": 2**12, "max_length": 2**24,
    "T": MOST_STEPS,
}  # fmt: skip


class DenoiserConfig(PretrainedConfig):
    """Shape of a Denoiser.

    Args:
        vocab_size: V, special tokens included; mask_token_id: its output column is -inf (None: no such column).
        head_size: output channels, V if None. input_size: channels of a noisy embedding; 0: it reads ids.
        hidden_size, num_layers, num_heads: width D, depth, attention heads; intermediate_size: 4 D if None.
        max_length: longest sequence; rotary: rotate queries and keys by position, besides position embeddings.
        time: how t enters: "none"; "sinusoidal" or "table", added to the tokens; "adaln", scales and shifts each layer.
        T: length of the time axis; dropout; causal: attend to the left only (autoregressive).
        block: tokens of a block, which attends to itself and to earlier blocks; 0: one canvas (see `forward`).
        tied: the head shares the token embedding, which saves V x D weights where the vocabulary is large.
        labels: how many labels a text can be conditioned on; 0 for none.
    Raises: ValueError for an unknown `time`, a width that the heads do not divide, or blocks that do not fit.
    """

    model_type = "diffkit-denoiser"
    max_length: int  # declared, or transformers takes it for a setting of its text generators and refuses to save it

    def __init__(
        self, vocab_size: int = 166, mask_token_id: int | None = None, head_size: int | None = None,
        input_size: int = 0, hidden_size: int = 128, num_layers: int = 4, num_heads: int = 4,
        intermediate_size: int | None = None, max_length: int = 48, rotary: bool = True, time: str = "none",
        T: int = 1000, dropout: float = 0.0, causal: bool = False, block: int = 0, tied: bool = True, labels: int = 0,
        **kwargs: Any,
    ):  # fmt: skip
        if time not in TIMES:
            raise ValueError(f"DenoiserConfig: time must be one of {list(TIMES)}, got {time!r}.")
        sizes = {"vocab_size": vocab_size, "hidden_size": hidden_size, "num_layers": num_layers, "num_heads": num_heads}
        for name, size in (sizes | {"max_length": max_length, "T": T}).items():
            if not 1 <= size <= LARGEST[name]:
                raise ValueError(f"DenoiserConfig: {name} must lie in 1..{LARGEST[name]:,}, got {size}.")
        if hidden_size % (2 * num_heads):
            raise ValueError(
                f"DenoiserConfig: hidden_size must be {num_heads} times an even number, got {hidden_size}."
            )
        if not 0 <= block <= max_length or (block and (causal or time != "none")):
            raise ValueError(
                f"DenoiserConfig: block must lie in 0..{max_length}, without causal and with time='none', got "
                f"block={block}, causal={causal}, time={time!r}."
            )
        self.vocab_size, self.mask_token_id, self.head_size = vocab_size, mask_token_id, head_size or vocab_size
        self.input_size = input_size
        self.hidden_size, self.num_layers, self.num_heads = hidden_size, num_layers, num_heads
        self.intermediate_size = intermediate_size or 4 * hidden_size
        self.max_length, self.rotary, self.time, self.T = max_length, rotary, time, T
        self.dropout, self.causal, self.block, self.labels = dropout, causal, block, labels
        self.tied = tied and self.head_size == vocab_size and not input_size
        super().__init__(**kwargs)


# Sizes of the course. The first two are for the language `tales`, the others take BERT's vocabulary (30,522 tokens).
SIZES: dict[str, dict[str, Any]] = {
    "pico": {"hidden_size": 64, "num_layers": 3, "num_heads": 4, "tied": False},
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
    """(B,) times to (B, D): fixed waves, then a small network."""

    def __init__(self, config: DenoiserConfig):
        super().__init__()
        D = config.hidden_size
        self.width, self.net = D, nn.Sequential(nn.Linear(D, D), nn.SiLU(), nn.Linear(D, D))
        self.scale = 1000 / config.T  # the waves expect times up to about a thousand

    def forward(self, t: Tensor) -> Tensor:
        return self.net(sinusoids(t * self.scale, self.width).to(self.net[0].weight.dtype))  # type: ignore[arg-type]


class TableTime(nn.Module):
    """(B,) times to (B, D): one learned row for each whole step, the nearest above for times between."""

    def __init__(self, config: DenoiserConfig):
        super().__init__()
        self.table = nn.Embedding(config.T + 1, config.hidden_size)

    def forward(self, t: Tensor) -> Tensor:
        return self.table(t.ceil().long())


TIMES: dict[str, Callable[[DenoiserConfig], nn.Module | None]] = {
    "none": lambda _: None, "sinusoidal": SinusoidalTime, "table": TableTime, "adaln": SinusoidalTime
}  # fmt: skip


class Denoiser(PreTrainedModel):
    """The backbone: noisy tokens (or embeddings) and a time in, `head_size` channels per position out.

    Positions come as learned embeddings, and rotary angles if asked for: on a canvas of masks all tokens are alike, so
    relative positions alone would leave every position with the same prediction.
    """

    config_class = DenoiserConfig
    config: DenoiserConfig
    base_model_prefix = "denoiser"

    def __init__(self, config: DenoiserConfig):
        super().__init__(config)
        D = config.hidden_size
        self.token_embedding: nn.Embedding | nn.Linear = nn.Embedding(config.vocab_size, D)
        if config.input_size:
            self.token_embedding = nn.Linear(config.input_size, D, bias=False)
        self.position_embedding = nn.Embedding(config.max_length, D)
        self.time = TIMES[config.time](config)
        self.label_embedding = nn.Embedding(config.labels + 1, D) if config.labels else None  # the last row: no label
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(D, bias=False)
        self.head = None if config.tied else nn.Linear(D, config.head_size, bias=False)
        self.head_bias = nn.Parameter(torch.zeros(config.head_size))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """As transformers does it, with a standard deviation of 0.02; at the start a label or a time has no effect."""
        super()._init_weights(module)
        if isinstance(module, Denoiser):  # not by Block: transformers skips modules without weights of their own
            for part in (module.label_embedding, *(block.modulation for block in module.blocks)):
                if isinstance(part, nn.Linear | nn.Embedding):
                    nn.init.zeros_(part.weight)

    def forward(
        self, xt: Tensor, t: Tensor | float, where: Tensor | None = None, cache: KeyValueCache | None = None,
        label: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Denoise.

        Args:    xt: (B, L) ids, in a network with blocks (B, 2 L), noisy text and then clean text; in a network of
                 embeddings (B, L, input_size) numbers;
                 t: (B,) or one time in [0, T], ignored if the model has no time input;
                 where: (B, L) bool, compute the head at these positions only;
                 cache: xt continues the positions in it, and is added to it; for a causal network, or one with blocks,
                 which then reads a single text: finished blocks and the one that is being written;
                 label: (B,) numbers in 0..labels, the last one meaning any; None: any.
        Returns: (B, L, head_size), or (N, head_size) for the N positions of `where`; the MASK column is -inf.
        Raises:  ValueError for a wrong shape or a sequence longer than max_length. Ids, times and labels out of range
                 are checked outside training and on the CPU, where no device is waited for.
        """
        past = 0 if cache is None else len(cache)
        self._check(xt, where, past, cache)
        if not self.training and xt.is_cpu and not torch.compiler.is_compiling():
            self._check_values(xt, t, label)
        streams = 2 if self.config.block and cache is None else 1  # noisy and clean text have the same positions
        L, K = xt.shape[1] // streams, self.config.hidden_size // self.config.num_heads
        positions = torch.arange(past, past + L, device=xt.device).repeat(streams)
        noisy = xt.to(self.head_bias.dtype) if self.config.input_size else xt
        x = self.token_embedding(noisy) + self.position_embedding(positions)  # (B, streams L, D)
        time = None
        if self.time is not None:
            time = self.time(torch.as_tensor(t, device=xt.device).expand(len(xt)))  # (B, D)
            if self.config.time != "adaln":
                x, time = x + time[:, None], None
        if self.label_embedding is not None:
            x = x + (self.label_embedding.weight[-1] if label is None else self.label_embedding(label)[:, None])
        waves = sinusoids(positions, K).to(x.dtype)
        angles = waves.chunk(2, -1) if self.config.rotary else None  # cosines and sines, each (streams L, K / 2)
        mask = self._mask(L, past, cache, xt.device)
        for block in self.blocks:
            x = block(x, time, angles, mask, cache)
        return self._output(x[:, :L] if where is None else x[:, :L][where])

    def _mask(self, L: int, past: int, cache: KeyValueCache | None, device: torch.device) -> Tensor | None:
        """The attention mask of all layers; None: full attention, or causal from the first position on."""
        if self.config.block and cache is None:
            return two_stream_mask(L, self.config.block, device)
        if self.config.block or (past and self.config.causal):
            return block_causal_mask(L, past, self.config.block or 1, device)
        return None

    def _output(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., head_size)."""
        weight = self.token_embedding.weight if self.head is None else self.head.weight
        bias: Tensor = self.head_bias
        if self.config.mask_token_id is not None:
            never = torch.arange(len(bias), device=bias.device) == self.config.mask_token_id
            bias = bias.masked_fill(never, -torch.inf)
        return F.linear(self.norm(x), weight, bias)

    def _check(self, xt: Tensor, where: Tensor | None, past: int, cache: KeyValueCache | None) -> None:
        """Check shapes and types, which reads nothing from a device."""
        streams, size = 2 if self.config.block and cache is None else 1, self.config.input_size
        if cache is not None and cache.exact and not (self.config.causal or self.config.block):
            raise ValueError("Denoiser: a cache needs a network that is causal or has blocks, or its keys go stale.")
        if size and (xt.ndim != 3 or xt.shape[2] != size):
            raise ValueError(f"Denoiser: xt must be (B, L, {size}) embeddings, got {tuple(xt.shape)}.")
        if not size and (xt.ndim != 2 or xt.dtype not in (torch.int32, torch.int64) or not xt.numel()):
            raise ValueError(f"Denoiser: xt must be (B, L) integer ids, got {xt.dtype} {tuple(xt.shape)}.")
        if xt.shape[1] % streams:
            raise ValueError(
                f"Denoiser: a network with blocks reads noisy and then clean text, (B, 2 L) ids, got {tuple(xt.shape)}."
            )
        L = xt.shape[1] // streams
        if past + L > self.config.max_length:
            raise ValueError(
                f"Denoiser: sequences have at most {self.config.max_length} tokens (max_length), got {past + L}. Cut "
                "the text into shorter chunks, or build the model with a larger max_length."
            )
        if where is not None and (where.dtype != torch.bool or where.shape != (len(xt), L)):
            raise ValueError(f"Denoiser: where must be ({len(xt)}, {L}) bool, got {where.dtype} {tuple(where.shape)}.")

    def _check_values(self, xt: Tensor, t: Tensor | float, label: Tensor | None) -> None:
        V, T, labels, t = self.config.vocab_size, self.config.T, self.config.labels, torch.as_tensor(t)
        if not self.config.input_size and (xt.min() < 0 or xt.max() >= V):
            raise ValueError(
                f"Denoiser: ids lie in 0..{V - 1}, got {xt.min()}..{xt.max()}. Was the text made with another "
                "tokenizer?"
            )
        if self.time is not None and (t.shape not in ((), (1,), (len(xt),)) or not ((t >= 0) & (t <= T)).all()):
            raise ValueError(f"Denoiser: t must be one time or ({len(xt)},) of them in [0, {T}], got {t}.")
        if label is not None and (
            not labels or label.shape != (len(xt),) or not ((label >= 0) & (label <= labels)).all()
        ):
            raise ValueError(f"Denoiser: label must be ({len(xt)},) numbers in 0..{labels}, got {label.tolist()[:8]}.")


def parameter_count(model: nn.Module) -> int:
    """Number of trained numbers in a model, shared ones once."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
