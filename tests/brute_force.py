"""Noise on tokens by brute force: matrices written out entry by entry, all states of a canvas, sums over all of them.

DUO is a language of 2-word texts, so small that a chain over whole texts fits into a matrix.
"""

import itertools
import math

import numpy
import torch
from toys import generator

from diffkit.languages.story_language import StoryLanguage
from diffkit.languages.tales import Grammar, Slot, Template
from diffkit.processes import process_from

DUO = StoryLanguage(
    Grammar(
        slots={
            "one": Slot([{"": "aa", "other": "bb"}, {"": "bb", "other": "aa"}], [0.7, 0.3]),
            "two": Slot([{"": "aa"}, {"": "bb"}], [0.2, 0.8]),
        },
        templates=[
            Template("{one} {one.other}", 0.5, "x"),
            Template("{one} {one}", 0.3, "x"),
            Template("{two}", 0.2, "x"),
        ],
        length=3,
    )
)


def words_of(language):
    return [v for v in range(language.vocab_size) if v != language.mask_id]


def states_of(language, with_mask):
    """Every canvas of words, and of MASK if asked: (n, L)."""
    symbols = range(language.vocab_size) if with_mask else words_of(language)
    return torch.tensor(list(itertools.product(symbols, repeat=language.length)))


def one_step(process, t):
    """Q_t as the paper defines it, entry by entry: (V, V) float64."""
    V, mask, name = process.vocab_size, process.mask_id, process.transitions.name
    words, T = [v for v in range(V) if v != mask], process.T
    now, before = (process.schedule.gamma(float(time)).item() for time in (t, t - 1))
    beta = (now - before) / (1 - before)
    matrix = [[float(a == b) for b in range(V)] for a in range(V)]
    for a, b in itertools.product(words, range(V)):
        if name == "uniform":
            matrix[a][b] = (1 - beta) * (a == b) + beta * (b != mask) / len(words)
        elif name == "absorbing":
            matrix[a][b] = (1 - beta) * (a == b) + beta * (b == mask)
        elif b != mask and a != b:
            width = (len(words) - 1) ** 2 * (process.transitions.beta_first + now * (
                process.transitions.beta_last - process.transitions.beta_first))  # fmt: skip
            total = sum(math.exp(-4 * d * d / width) for d in range(-len(words) + 1, len(words)))
            matrix[a][b] = math.exp(-4 * (words.index(a) - words.index(b)) ** 2 / width) / total
    if name == "gaussian":
        for a in words:
            matrix[a][a] = 1 - sum(matrix[a][b] for b in words if b != a)
    assert T == process.schedule.T
    return torch.tensor(matrix, dtype=torch.float64)


def travel(process, s, t):
    """Q_{s+1} ... Q_t."""
    product = torch.eye(process.vocab_size, dtype=torch.float64)
    for r in range(s + 1, t + 1):
        product = product @ one_step(process, r)
    return product


def bayes(process, s, t):
    """q(x_s = b | x_t = c, x_0 = a) as a table [a, c, b]; NaN where c cannot come from a."""
    joint = travel(process, 0, s)[:, None, :] * travel(process, s, t).T[None]  # [a, c, b]
    return joint / joint.sum(-1, keepdim=True)


def chances_of_states(matrix, x0, states):
    """Chance of every canvas given one clean text, places independent: (V, V), (L,), (n, L) -> (n,)."""
    return matrix[x0, states].prod(-1)


def texts_of(language):
    """Every text of a small language and its probability: (n, L), (n,) float64."""
    states = states_of(language, with_mask=False)
    log_p = language.log_prob(states)
    return states[log_p > -math.inf], log_p[log_p > -math.inf].exp()


def true_reverse(process, language, states, s, t):
    """p(x_s[i] = b | x_t) of the language itself, by Bayes over its texts: (n, L, V). The chain's best way back."""
    texts, probs = texts_of(language)
    table = bayes(process, s, t).nan_to_num(0.0)
    forward = travel(process, 0, t)
    weight = torch.stack([p * chances_of_states(forward, x, states) for x, p in zip(texts, probs, strict=True)], 1)
    weight = weight / weight.sum(1, keepdim=True).clamp(min=1e-300)  # (n, texts)
    place = table[texts[None].expand(len(states), -1, -1), states[:, None].expand(-1, len(texts), -1)]
    return torch.einsum("nx,nxlv->nlv", weight, place)


def table_of(states, V, seed=0):
    """A denoiser with its own fixed random answer for each state; time is ignored."""
    table = torch.randn(V ** states.shape[1], states.shape[1], V, dtype=torch.float64, generator=generator(seed))
    powers = V ** torch.arange(states.shape[1])
    return lambda zt, t: table[zt @ powers]


def told(process, states):
    """The process with its randomness taken away: corrupt returns these states, whatever the text."""
    process.corrupt = lambda x0, t, rng: (states, states != x0)
    return process


def t_step_bound(process, denoise, x0, states):
    """The T-step bound of one text through the package's own loss: every time, every state."""
    n, total = len(states), 0.0
    told(process, states)
    for t in range(1, process.T + 1):
        terms = process.loss(denoise, x0.expand(n, -1), torch.full((n,), t), generator())
        nats = terms.diffusion.sum(1) + terms.reconstruction.sum(1)
        chance = chances_of_states(travel(process, 0, t), x0, states)
        total += (chance * nats).nan_to_num(0.0).sum().item() / process.T
    return total + terms.prior[0].sum().item()


def t_step_bound_by_definition(process, reverse_of, x0, states):
    """The same as the paper writes it: the divergences between q(x_s | x_t, x_0) and p(x_s | x_t), and the prior's."""
    total, limit = 0.0, process.transitions.limit()
    for t in range(1, process.T + 1):
        truth = bayes(process, t - 1, t)[x0.expand_as(states), states]  # (n, L, V)
        guess = reverse_of(states, t, t - 1)
        kl = torch.where(truth > 0, truth * (truth.log() - guess.log()), 0.0).sum((1, 2))
        chance = chances_of_states(travel(process, 0, t), x0, states)
        total += torch.where(chance > 0, chance * kl, 0.0).sum().item()
    last = travel(process, 0, process.T)[x0]
    return total + torch.where(last > 0, last * (last.log() - limit.log()), 0.0).sum().item()


def written(reverse_of, start, states, times):
    """Exact probability that the sampler ends in each state: (n,) chances at the start, times from T down to 0."""
    now = start
    for t, s in zip(times[:-1], times[1:], strict=True):
        reverse = reverse_of(states, t, s).nan_to_num(0.0)  # (n, L, V); NaN where a state is never reached
        moves = torch.stack([reverse[:, i][:, states[:, i]] for i in range(states.shape[1])]).prod(0)  # (from, to)
        now = now @ moves
    return now


def prior_chances(process, states):
    return process.transitions.limit()[states].prod(-1)


def score_bounds(process, denoise, texts, every, nodes=64):
    """Bounds of texts (n, L) by quadrature over noise levels and sums over all states, from the package's own parts.

    u = v^3 (10 - 15 v + 6 v^2) puts nodes close to both ends, where the integrand has logarithms.
    """
    v, weight = (torch.from_numpy(part) for part in numpy.polynomial.legendre.leggauss(nodes))
    v, weight = (v + 1) / 2, weight / 2
    u, slope = v**3 * (10 - 15 * v + 6 * v**2), 30 * v**2 * (1 - v) ** 2
    gamma = process.schedule.gamma
    first, last = gamma(process.inside(torch.tensor([0, process.T])))
    totals = process.prior_loss(texts).sum(1)
    for level, share in zip(first + u * (last - first), weight * slope * (last - first), strict=True):
        t = process.inside(process.schedule.time_of(level)).expand(len(every))
        raw, one = denoise(every, t), torch.eye(process.vocab_size).double() * (1 - level)
        one = one + level * process.transitions.limit()
        for i, x0 in enumerate(texts):
            chance = one[x0, every].prod(-1)
            nats = process.score_entropy(raw, x0.expand_as(every), every, t).sum(1) / process.schedule.dgamma(t)
            totals[i] += share * (chance * nats)[chance > 0].sum()
    if first > 1e-8:
        fresh = told(process_from(process.settings()), every)
        one = torch.eye(process.vocab_size).double() * (1 - first) + first * process.transitions.limit()
        for i, x0 in enumerate(texts):
            nats = fresh.reconstruction_loss(denoise, x0.expand_as(every), generator()).sum(1)
            chance = one[x0, every].prod(-1)
            totals[i] += (chance * nats)[chance > 0].sum()
    return totals
