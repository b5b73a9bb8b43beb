"""The layers of the backbone: attention with its masks, and the block around it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PretrainedConfig

from diffkit.network.cache import KeyValueCache

SHARPEST = 12.0  # attention logit of a query and a key that agree fully, at the start: enough to select one of many


# ---------------------------------------------------------------------------------------------------------------- masks


def block_causal_mask(L: int, past: int, block: int, device: torch.device | None = None) -> Tensor:
    """Attention mask of L positions after `past` others: one's own block and all before it, (L, past + L) bool.

    Blocks of one token make an ordinary causal mask.
    """
    blocks = torch.arange(past + L, device=device) // block
    return blocks[past:, None] >= blocks


def two_stream_mask(L: int, block: int, device: torch.device | None = None) -> Tensor:
    """Attention mask of [x_t ; x_0], noisy text and then clean text, (2 L, 2 L) bool.

    A noisy position sees its own noisy block and the clean blocks before it; a clean position its own and the clean
    blocks before it. So one pass predicts every block from what will be there when its turn comes.
    Source: arXiv:2503.09573, section 3.2.
    """
    blocks = torch.arange(L, device=device) // block
    same, later = blocks[:, None] == blocks, blocks[:, None] > blocks
    return torch.cat([torch.cat([same, later], 1), torch.cat([torch.zeros_like(same), same | later], 1)])


# ----------------------------------------------------------------------------------------------------------- the layers


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair of channels of (B, H, L, K) by an angle that grows with position (arXiv:2104.09864)."""
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


class Attention(nn.Module):
    """Multi-head attention; queries and keys are normalised, so that high learning rates stay stable."""

    def __init__(self, config: PretrainedConfig):
        super().__init__()
        D, K = config.hidden_size, config.hidden_size // config.num_heads
        self.heads, self.causal, self.dropout = config.num_heads, config.causal, config.dropout
        self.max_length = config.max_length
        self.query, self.key, self.value, self.out = (nn.Linear(D, D, bias=False) for _ in range(4))
        self.norm_query, self.norm_key = nn.LayerNorm(K, bias=False), nn.LayerNorm(K, bias=False)

    def forward(
        self, x: Tensor, angles: tuple[Tensor, ...] | None, mask: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:  # fmt: skip
        B, L, D = x.shape
        q, k, v = (f(x).view(B, L, self.heads, -1).transpose(1, 2) for f in (self.query, self.key, self.value))
        q, k = self.norm_query(q), self.norm_key(k)  # (B, H, L, K)
        if angles is not None:
            q, k = rotate(q, *angles), rotate(k, *angles)
        if cache is not None:
            k, v = cache.extend(self, k, v, self.max_length)
        dropout = self.dropout if self.training else 0.0
        scale = SHARPEST / q.shape[-1]  # normalised vectors have length sqrt(K)
        causal = self.causal and mask is None
        mixed = F.scaled_dot_product_attention(q, k, v, mask, dropout_p=dropout, is_causal=causal, scale=scale)
        return self.out(mixed.transpose(1, 2).reshape(B, L, D))


class Block(nn.Module):
    """Attention, then a two-layer network, each on normalised input and added back."""

    def __init__(self, config: PretrainedConfig):
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

    @torch.no_grad()
    def open_gates(self) -> None:
        """Let the block answer as one without a time does, until it has learned the time."""
        if self.modulation is not None:
            self.modulation.bias.view(6, -1)[[2, 5]] = 1

    def forward(
        self, x: Tensor, time: Tensor | None, angles: tuple[Tensor, ...] | None, mask: Tensor | None = None,
        cache: KeyValueCache | None = None,
    ) -> Tensor:  # fmt: skip
        if self.modulation is None or time is None:
            x = x + self.dropout(self.attention(self.norm_attention(x), angles, mask, cache))
            return x + self.dropout(self.network(self.norm_network(x)))
        shift_a, scale_a, gate_a, shift_n, scale_n, gate_n = self.modulation(F.silu(time))[:, None].chunk(6, -1)
        normal = self.norm_attention(x) * (1 + scale_a) + shift_a
        x = x + gate_a * self.dropout(self.attention(normal, angles, mask, cache))
        return x + gate_n * self.dropout(self.network(self.norm_network(x) * (1 + scale_n) + shift_n))
