"""The transformer of the models that MDLM's authors published, so that their weights can be read (see hub.py)."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PretrainedConfig, PreTrainedModel

from diffkit.network.attention import rotate
from diffkit.network.cache import KeyValueCache
from diffkit.network.transformer import sinusoids

WAVES = 256  # channels of the fixed waves by which sigma enters
SMALLEST_ALPHA = 1e-3  # of the log-linear noise that the published models were trained with


class DiTConfig(PretrainedConfig):
    """Shape of a DiT. Names as in DenoiserConfig; `cond_size` is the width of the vector that scales and shifts.

    Args: time: "none", then the noise level that the network reads is always 0, or "sigma", -log(1 - gamma).
    """

    model_type = "diffkit-dit"
    max_length: int

    def __init__(
        self, vocab_size: int = 50258, mask_token_id: int | None = 50257, hidden_size: int = 768, num_layers: int = 12,
        num_heads: int = 12, cond_size: int = 128, max_length: int = 1024, time: str = "none", T: int = 1000,
        dropout: float = 0.1, **kwargs: Any,
    ):  # fmt: skip
        if time not in ("none", "sigma"):
            raise ValueError(f"DiTConfig: time must be 'none' or 'sigma', got {time!r}.")
        self.vocab_size, self.mask_token_id = vocab_size, mask_token_id
        self.hidden_size, self.num_layers, self.num_heads = hidden_size, num_layers, num_heads
        self.cond_size, self.max_length, self.time, self.T, self.dropout = cond_size, max_length, time, T, dropout
        self.labels = 0
        super().__init__(**kwargs)


class Modulation(nn.Linear):
    """Shifts, scales and gates of normalised input; all 0 at the start (arXiv:2212.09748)."""


class DiTBlock(nn.Module):
    """Attention and a two-layer network, each shifted, scaled and gated by the noise level."""

    def __init__(self, config: DiTConfig):
        super().__init__()
        D = config.hidden_size
        self.heads = config.num_heads
        self.norm_attention, self.norm_network = nn.LayerNorm(D, bias=False), nn.LayerNorm(D, bias=False)
        self.qkv, self.out = nn.Linear(D, 3 * D, bias=False), nn.Linear(D, D, bias=False)
        self.network = nn.Sequential(nn.Linear(D, 4 * D), nn.GELU("tanh"), nn.Linear(4 * D, D))
        self.modulation = Modulation(config.cond_size, 6 * D)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, level: Tensor, angles: tuple[Tensor, ...]) -> Tensor:
        shift_a, scale_a, gate_a, shift_n, scale_n, gate_n = self.modulation(level)[:, None].chunk(6, -1)
        qkv = self.qkv(self.norm_attention(x) * (1 + scale_a) + shift_a)
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each (B, H, L, K)
        mixed = F.scaled_dot_product_attention(rotate(q, *angles), rotate(k, *angles), v)
        x = x + gate_a * self.dropout(self.out(mixed.transpose(1, 2).flatten(2)))
        return x + gate_n * self.dropout(self.network(self.norm_network(x) * (1 + scale_n) + shift_n))


class DiT(PreTrainedModel):
    """A denoiser with rotary positions only, called as `Denoiser`: noisy ids and a time in, logits out.

    Source: arXiv:2406.07524 and its public code; the layers are those of arXiv:2212.09748 with rotary positions.
    """

    config_class = DiTConfig
    config: DiTConfig
    base_model_prefix = "dit"

    def __init__(self, config: DiTConfig):
        super().__init__(config)
        D, C = config.hidden_size, config.cond_size
        self.token_embedding = nn.Embedding(config.vocab_size, D)
        self.time = nn.Sequential(nn.Linear(WAVES, C), nn.SiLU(), nn.Linear(C, C))
        self.blocks = nn.ModuleList(DiTBlock(config) for _ in range(config.num_layers))
        self.norm, self.modulation = nn.LayerNorm(D, bias=False), Modulation(C, 2 * D)
        self.head = nn.Linear(D, config.vocab_size)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, Modulation):
            nn.init.zeros_(module.weight)

    def forward(
        self, xt: Tensor, t: Tensor | float, where: Tensor | None = None, cache: KeyValueCache | None = None,
        label: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """As Denoiser.forward, without a cache and labels."""
        L, K = xt.shape[1], self.config.hidden_size // self.config.num_heads
        if L > self.config.max_length or cache is not None or label is not None:
            raise ValueError(f"DiT: at most {self.config.max_length} tokens, no cache and no label, got {L} tokens.")
        share = torch.as_tensor(t, device=xt.device).expand(len(xt)).double() / self.config.T
        sigma = -torch.log1p((SMALLEST_ALPHA - 1) * share) if self.config.time == "sigma" else 0 * share
        level = F.silu(self.time(sinusoids(sigma, WAVES).to(self.head.weight.dtype)))  # (B, C)
        x = self.token_embedding(xt)
        angles = sinusoids(torch.arange(L, device=xt.device), K).to(x.dtype).chunk(2, -1)
        for block in self.blocks:
            x = block(x, level, angles)
        shift, scale = self.modulation(level)[:, None].chunk(2, -1)
        x = self.norm(x) * (1 + scale) + shift
        mask_id = cast(int, self.config.mask_token_id)
        never = torch.arange(self.config.vocab_size, device=x.device) == mask_id
        return F.linear(
            x if where is None else x[where], self.head.weight, self.head.bias.masked_fill(never, -torch.inf)
        )
