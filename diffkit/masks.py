"""Who sees whom: attention masks of networks that read in blocks."""

from __future__ import annotations

import torch
from torch import Tensor


def block_causal_mask(L: int, past: int, block: int, device: torch.device | None = None) -> Tensor:
    """Who sees whom where L places follow `past` others: one's own block and all before it, (L, past + L) bool.

    Blocks of one token make an ordinary causal mask.
    """
    blocks = torch.arange(past + L, device=device) // block
    return blocks[past:, None] >= blocks


def two_stream_mask(L: int, block: int, device: torch.device | None = None) -> Tensor:
    """Who sees whom in [x_t ; x_0], noisy text and clean text one behind the other, (2 L, 2 L) bool.

    A noisy place sees its own noisy block and the clean blocks before it; a clean place its own and the clean ones
    before it. So one pass predicts every block from what will be there when its turn comes.
    Source: arXiv:2503.09573, section 3.2.
    """
    blocks = torch.arange(L, device=device) // block
    same, later = blocks[:, None] == blocks, blocks[:, None] > blocks
    return torch.cat([torch.cat([same, later], 1), torch.cat([torch.zeros_like(same), same | later], 1)])
