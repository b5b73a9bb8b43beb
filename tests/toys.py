"""Small worlds in which everything is known: `micro` written out by hand-made loops, a random denoiser, exact samplers.

Nothing here uses the inference of diffkit.languages.story_language: it is what that inference is held against.
"""

import itertools
import math

import torch
from hypothesis import settings
from scipy.stats import chisquare

from diffkit.languages.story_language import load_language
from diffkit.model import build_model
from diffkit.network.transformer import Denoiser, DenoiserConfig
from diffkit.processes.masked import MaskedDiffusion

# slow machines; the same examples each time
settings.register_profile("diffkit", deadline=None, derandomize=True, max_examples=40)
settings.load_profile("diffkit")

MICRO = load_language("micro")
TALES = load_language("tales")
L, V, MASK = MICRO.length, MICRO.vocab_size, MICRO.mask_id


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def derivations(language):
    """Yield (words, probability, template number, label) for every choice of a template and of all its slots."""
    grammar = language.grammar
    for k, template in enumerate(grammar.templates):
        words = template.text.split()
        used = list(dict.fromkeys(word.strip("{}").split(".")[0] for word in words if word.startswith("{")))
        for values in itertools.product(*(range(len(grammar.slots[name].values)) for name in used)):
            chosen = dict(zip(used, values, strict=True))
            prob = template.prob * math.prod(grammar.slots[name].probs[i] for name, i in chosen.items())
            shown = []
            for word in words:
                name, _, form = word.strip("{}").partition(".")
                shown.append(grammar.slots[name].values[chosen[name]][form] if word.startswith("{") else word)
            yield tuple(shown), prob, k, template.label


def canvas(words, language=MICRO):
    """Words to ids: the story, EOS, PAD."""
    ids = [language.tokenizer.get_vocab()[word] for word in [*words, "[EOS]"]]
    return ids + [language.tokenizer.get_vocab()["[PAD]"]] * (language.length - len(ids))


DERIVATIONS = list(derivations(MICRO))
TEXTS = torch.tensor([canvas(words) for words, *_ in DERIVATIONS])  # (16, L)
PROBS = torch.tensor([prob for _, prob, *_ in DERIVATIONS], dtype=torch.float64)
LABELS = [label for *_, label in DERIVATIONS]
ENTROPY = -(PROBS * PROBS.log()).sum().item()
SUBSETS = torch.tensor(list(itertools.product([False, True], repeat=L)))  # (2^L, L) which positions are hidden


def masked_diffusion(schedule="linear", **settings):
    return MaskedDiffusion(V, MASK, schedule, **settings)


def table_denoiser(seed=0, sharpness=1.0):
    """A denoiser that answers every state with its own fixed random logits, MASK included; time is ignored."""
    table = sharpness * torch.randn(V**L, L, V, dtype=torch.float64, generator=generator(seed))
    powers = V ** torch.arange(L)
    return lambda zt, t: table[zt @ powers]


def deduplicated(denoise):
    """The same answers from a denoiser that ignores time, asked once for each different row."""

    def answer(zt, t):
        rows, which = torch.unique(zt, dim=0, return_inverse=True)
        return denoise(rows, t[: len(rows)])[which]

    return answer


def uniform_denoiser(zt, t):
    return torch.zeros(*zt.shape, V, dtype=torch.float64)


def beliefs(denoise, states):
    """Softmax without MASK, (n, L) states to (n, L, V): the SUBS rule written out."""
    logits = denoise(states, torch.ones(len(states))).clone()
    logits[..., MASK] = -torch.inf
    return logits.softmax(-1)


def hidden_losses(denoise, x0):
    """-log f summed over hidden tokens for one text (L,), under every subset: (2^L,)."""
    states = torch.where(SUBSETS, MASK, x0)
    nats = -beliefs(denoise, states).gather(2, x0.expand(len(states), L)[..., None])[..., 0].log()
    return torch.where(SUBSETS, nats, 0.0).sum(1)


def count_bound(denoise, x0):
    """The bound in its count form: sum over k of the mean over k-subsets of (1 / k) times the loss of hidden tokens."""
    losses, size = hidden_losses(denoise, x0), SUBSETS.sum(1)
    return sum(losses[size == k].mean().item() / k for k in range(1, L + 1))


def chain_prob(denoise, x0, stays):
    """Probability that the sampler writes exactly x0 (L,), given stay-masked chances of its steps: sum over all paths.

    Only states that agree with x0 lie on such a path, one for each subset of hidden positions.
    """
    belief = beliefs(denoise, torch.where(SUBSETS, MASK, x0)).gather(2, x0.expand(len(SUBSETS), L)[..., None])[..., 0]
    prob = SUBSETS.all(1).double()  # all hidden at the start
    before, after = SUBSETS[:, None], SUBSETS[None]  # (from, to)
    legal = (after <= before).all(-1)
    for stay in stays:
        each = torch.where(after, stay, (1 - stay) * belief[:, None]).where(before, 1.0)
        prob = prob @ (each.prod(-1) * legal)
    return prob[~SUBSETS.any(1)].item()


def micro_counts(ids):
    """How often each text of TEXTS was drawn, and last how many rows are none of them: (17,)."""
    codes = {tuple(row): i for i, row in enumerate(TEXTS.tolist())}
    return torch.bincount(torch.tensor([codes.get(tuple(row), len(TEXTS)) for row in ids.tolist()]), minlength=17)


def likeness(counts):
    """p of a chi-square test that those of the counted texts that are one, see `micro_counts`, follow the language."""
    found = counts[: len(TEXTS)].double()
    return chisquare(found.numpy(), (found.sum() * PROBS / PROBS.sum()).numpy()).pvalue


def random_texts(n, seed=0):
    """Any words in any order, (n, L)."""
    words = torch.tensor([v for v in range(V) if v != MASK])
    return words[torch.randint(0, V - 1, (n, L), generator=generator(seed))]


def moved_network(process, seed=0, **settings):
    """A small network whose every weight was moved, in float64."""
    torch.manual_seed(seed)
    shape = {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "max_length": L}
    model = build_model(process, shape, **settings).double().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return model


def sharp_network(*, seed=1, factor=8, **settings):
    """A small network with sharp predictions, in double precision so that a smaller batch gives the same numbers."""
    torch.manual_seed(seed)
    config = {"vocab_size": V, "mask_token_id": MASK, "hidden_size": 16, "num_layers": 2, "num_heads": 2}
    model = Denoiser(DenoiserConfig(**config | {"max_length": L, "tied": False} | settings)).double().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(factor)
    return model


def prompts(n=64, seed=3, hidden=0.6):
    """Texts of `micro` with some of their tokens hidden, (n, L)."""
    rng = generator(seed)
    texts = TEXTS[torch.randint(0, len(TEXTS), (n,), generator=rng)]
    return torch.where(torch.rand(n, L, generator=rng) < hidden, MASK, texts)
