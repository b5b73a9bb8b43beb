"""A left-to-right language model in one file: text, network, loss, training, sampling, its exact likelihood.

    python examples/nano_gpt.py stories.txt                                   # train on any text, then write
    python examples/nano_gpt.py tales                                         # a language whose entropy is known
    python examples/nano_gpt.py stories.txt --load model.safetensors --fill "One day"

nano_mdlm.py is the same file for masked diffusion: `diff` the two to see what makes that one a diffusion model.
Only torch is needed (for `tales` also diffkit).
"""

import argparse
import json
import math
import re
import time
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MASK = 0  # its id; clean text never holds it
WORD = re.compile(r" ?\w+|.", re.DOTALL)

# ---------------------------------------------------------------------------------------------------- text and tokens


class TextFile:
    """A text file as token ids: its commonest words whole, with the space before them, the rest letter by letter."""

    def __init__(self, path: str, words: int, length: int):
        text = Path(path).read_text(encoding="utf-8")
        counts = Counter(word for word in WORD.findall(text) if len(word) > 1)
        self.pieces = ["[MASK]", *sorted(set(text)), *(word for word, _ in counts.most_common(words))]
        self.number = {piece: i for i, piece in enumerate(self.pieces)}
        ids = torch.tensor(self.encode(text))
        if len(ids) < 20 * length:
            raise SystemExit(f"{path} has {len(ids)} tokens; {20 * length} are needed. Give a longer text.")
        rows = ids[: len(ids) // 20 // length * length].view(-1, length)
        self.train, self.held_out, self.length, self.entropy = ids[rows.numel() :], rows, length, None
        self.characters = sum(len(self.decode(row)) for row in rows) / len(rows)  # of a window

    def encode(self, text: str) -> list[int]:
        pieces = [piece for word in WORD.findall(text) for piece in ([word] if word in self.number else word)]
        if missing := {piece for piece in pieces if piece not in self.number}:
            raise SystemExit(f"{sorted(missing)} never occur in the text that the model learns. Use other characters.")
        return [self.number[piece] for piece in pieces]

    def decode(self, ids: Tensor) -> str:
        return "".join("░" if i == MASK else self.pieces[i] for i in ids.tolist())

    def batch(self, B: int) -> Tensor:
        start = torch.randint(len(self.train) - self.length, (B, 1))
        return self.train[start + torch.arange(self.length)]  # (B, L)


class Tales:
    """The story language of diffkit: endless fresh stories, and their exact entropy. Its MASK and PAD swap ids."""

    def __init__(self) -> None:
        from diffkit import load_language

        self.language, self.rng = load_language("tales"), torch.Generator().manual_seed(1)
        self.length, self.entropy = self.language.length, self.language.entropy() / self.language.length
        self.pieces = self.language.tokenizer.convert_ids_to_tokens(range(self.language.vocab_size))
        self.held_out = self.batch(256)
        self.characters = sum(len(self.decode(row)) for row in self.held_out) / 256

    def swapped(self, ids: Tensor) -> Tensor:
        own = self.language.mask_id
        return torch.where(ids == MASK, own, torch.where(ids == own, MASK, ids))

    def encode(self, text: str) -> list[int]:
        return self.swapped(torch.tensor(self.language.tokenizer(text)["input_ids"])).tolist()

    def decode(self, ids: Tensor) -> str:
        return self.language.decode(self.swapped(ids)[None])[0].replace("[MASK]", "░")

    def batch(self, B: int) -> Tensor:
        return self.swapped(self.language.sample(B, self.rng))  # (B, L)


# -------------------------------------------------------------------------------------------------------- the network


def rotate(x: Tensor) -> Tensor:
    """Turn pairs of channels by an angle that grows with the position: attention feels distance (RoPE). (B, H, L, K)"""
    L, K = x.shape[-2:]
    angle = torch.arange(L)[:, None] * 10000.0 ** (-torch.arange(0, K, 2) / K)  # (L, K / 2)
    a, b = x.chunk(2, -1)
    return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], -1)


class Block(nn.Module):
    """Attention over earlier positions, then a two-layer network, each on normalised input and added back."""

    def __init__(self, D: int, heads: int):
        super().__init__()
        self.heads, self.norm_1, self.norm_2 = heads, nn.LayerNorm(D), nn.LayerNorm(D)
        self.qkv, self.out = nn.Linear(D, 3 * D, bias=False), nn.Linear(D, D, bias=False)
        self.mlp = nn.Sequential(nn.Linear(D, 4 * D), nn.GELU(), nn.Linear(4 * D, D))
        self.scale = nn.Parameter(torch.tensor(4.0))  # how sharp attention is: queries and keys have unit size
        for matrix in (self.out.weight, self.mlp[2].weight):
            nn.init.zeros_(matrix)  # a block starts by doing nothing

    def forward(self, x: Tensor) -> Tensor:
        B, L, D = x.shape
        q, k, v = self.qkv(self.norm_1(x)).view(B, L, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # (B, H, L, K)
        q, k = (rotate(F.normalize(each, dim=-1)) for each in (q, k))
        mixed = F.scaled_dot_product_attention(q * self.scale, k, v, scale=1.0, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(B, L, D))
        return x + self.mlp(self.norm_2(x))


class Transformer(nn.Module):
    """Token ids (B, L) to logits (B, L, V); MASK is never predicted."""

    def __init__(self, V: int, L: int, D: int = 96, layers: int = 3, heads: int = 4):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(V, D), nn.Embedding(L, D)
        self.blocks = nn.Sequential(*(Block(D, heads) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(D), nn.Linear(D, V)
        for table in (self.tokens, self.positions):
            nn.init.normal_(table.weight, std=0.02)
        nn.init.zeros_(self.head.weight)  # all tokens equally likely

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.blocks(self.tokens(x) + self.positions.weight[: x.shape[1]])
        return self.head(self.norm(hidden)).index_fill(-1, torch.tensor(MASK, device=x.device), -torch.inf)


# ---------------------------------------------------------------------------------------------------- loss, likelihood


def shift(x: Tensor) -> Tensor:
    """What the network reads to predict x: every token one position later, MASK in front."""
    return torch.cat([torch.full_like(x[:, :1], MASK), x[:, :-1]], 1)


def nll(model: nn.Module, x0: Tensor) -> Tensor:
    """-log p(x_0[i] | x_0[<i]) at every position: (B, L) nats."""
    return F.cross_entropy(model(shift(x0)).transpose(1, 2), x0, reduction="none")


def loss(model: nn.Module, x0: Tensor) -> Tensor:
    """-log p(x_0), nats a token."""
    return nll(model, x0).mean()


@torch.no_grad()
def bound(model: nn.Module, x0: Tensor, draws: int = 1) -> Tensor:
    """-log p(x_0) of each row (N,), nats: exact, so that there is nothing to draw."""
    return nll(model, x0).sum(1)


# ----------------------------------------------------------------------------------------------------------- sampling


@torch.no_grad()
def write(model: nn.Module, x: Tensor, steps: int, temperature: float = 1.0):
    """Fill the MASKs of x (B, L) from left to right; yields every state.

    Given tokens stay; what is given further right is not seen.
    """
    yield x
    for i in range(steps):
        probs = (model(shift(x))[:, i] / temperature).softmax(-1)  # (B, V)
        drawn = torch.multinomial(probs, 1).view(len(x))
        reveal = x[:, i] == MASK
        x = x.index_copy(1, torch.tensor([i]), torch.where(reveal, drawn, x[:, i])[:, None])
        yield x


def canvas(text: str, data, length: int) -> Tensor:
    """A text with blanks, ___ for one token and ___{4} for four, as (1, L) ids; MASK in the blanks and at the end."""
    first, *rest = re.split(r" *_{2,}(?:\{(\d+)\})?", text)
    ids = data.encode(first) if first else []
    for count, piece in zip(rest[::2], rest[1::2], strict=True):
        ids += [MASK] * int(count or 1) + (data.encode(piece) if piece else [])
    if len(ids) > length:
        raise SystemExit(f"--fill has {len(ids)} tokens, the model was made for {length}. Shorten the text.")
    return torch.tensor([ids + [MASK] * (length - len(ids))])


def animate(frames, data, seconds: float = 0.04) -> None:
    """Draw the first row of every state over the one before."""
    lines = 0
    for x in frames:
        text = data.decode(x[0])
        print(f"\033[{lines}F\033[J" if lines else "", text, sep="", flush=True)
        lines = sum(1 + max(0, len(line) - 1) // 80 for line in text.split("\n"))
        time.sleep(seconds)


# --------------------------------------------------------------------------------------------------- training and files


def orthogonal(X: Tensor) -> Tensor:
    """About the same matrix with all singular values at 1, by five Newton-Schulz steps."""
    if X.shape[0] > X.shape[1]:
        return orthogonal(X.T).T
    X = X / (X.norm() + 1e-7)
    for _ in range(5):
        A = X @ X.T
        X = 3.4445 * X + (2.0315 * A @ A - 4.775 * A) @ X
    return X


def train(model: nn.Module, data, steps: int, B: int = 16, lr: float = 5e-3):
    """Minimise the loss; yields (step, loss) after every step. Muon moves the blocks' matrices, AdamW the rest."""
    momentum = {p: torch.zeros_like(p) for p in model.blocks.parameters() if p.ndim == 2}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p not in momentum], betas=(0.9, 0.99))
    for step in range(steps):
        rate = lr * min(1, (step + 1) / 50) * (0.5 + 0.5 * math.cos(math.pi * step / steps))  # warm-up, half cosine
        optimizer.param_groups[0]["lr"] = rate
        batch_loss = loss(model, data.batch(B))
        model.zero_grad()
        batch_loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        for p, past in momentum.items():
            past.lerp_(p.grad, 0.05)
            p.data -= 4 * rate * max(1, p.shape[0] / p.shape[1]) ** 0.5 * orthogonal(p.grad.lerp(past, 0.95))
        yield step + 1, batch_loss.item()


def save(model: nn.Module, path: str) -> None:
    """Weights as safetensors, which is a JSON header and the bytes: no code runs when it is read."""
    header, numbers = {}, b""
    for name, tensor in model.state_dict().items():
        start, numbers = len(numbers), numbers + tensor.contiguous().numpy().tobytes()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [start, len(numbers)]}
    text = json.dumps(header).encode()
    Path(path).write_bytes(len(text).to_bytes(8, "little") + text + numbers)


def load(model: nn.Module, path: str) -> None:
    """Read what `save` wrote."""
    content = Path(path).read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    state = {
        name: torch.frombuffer(bytearray(content[start + a : start + b]), dtype=torch.float32).view(entry["shape"])
        for name, entry in json.loads(content[8:start]).items()
        for a, b in [entry["data_offsets"]]
    }
    model.load_state_dict(state)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", help="a text file, or `tales`")
    parser.add_argument("--steps", type=int, help="of training (default: 600, none with --load)")
    parser.add_argument("--words", type=int, default=1000, help="commonest words that are tokens; 0: only characters")
    parser.add_argument("--length", type=int, default=64, help="tokens of a window")
    parser.add_argument("--save", default="model.safetensors", help="file for the weights")
    parser.add_argument("--load", help="weights to start from")
    parser.add_argument("--fill", default="", help="a text with blanks, ___ or ___{4}")
    parser.add_argument("--temperature", type=float, default=0.8, help="below 1 safer, above 1 wilder")
    options = parser.parse_args()
    torch.manual_seed(0)
    data = Tales() if options.text == "tales" else TextFile(options.text, options.words, options.length)
    model = Transformer(len(data.pieces), data.length)
    if options.load:
        load(model, options.load)
    started, recent = time.time(), []
    known = f", entropy {data.entropy:.3f}" if data.entropy else ""
    for step, nats in train(model, data, 600 * (not options.load) if options.steps is None else options.steps):
        recent = [*recent[-49:], nats]
        if step % 50 == 0:
            print(f"step {step}: {sum(recent) / len(recent):.3f} nats a token{known}, {time.time() - started:.0f} s")
        if step % 200 == 0:
            print(data.decode(list(write(model, torch.full((1, data.length), MASK), data.length))[-1][0]))
    save(model, options.save)
    nats = bound(model, data.held_out)  # (N,)
    mean, error = nats.mean() / data.length, nats.std() / math.sqrt(len(nats)) / data.length
    print(f"held out: {mean:.3f} ± {error:.3f} nats a token{known};", end=" ")
    print(f"{nats.mean() / math.log(2) / data.characters:.3f} bits a character")
    animate(write(model, canvas(options.fill, data, data.length), data.length, options.temperature), data)


if __name__ == "__main__":
    main()
