"""Checks for the exercises of the notebooks: fresh random cases, and a counterexample in the learner's own terms.

A check takes the learner's function and returns a Verdict, which a cell shows by ending on the call. An untouched stub
(it returns `...` or None, or raises NotImplementedError) is "not attempted yet", so a notebook still runs from top to
bottom.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from diffkit.backbone import SIZES, Block, Denoiser, DenoiserConfig, parameter_count
from diffkit.noise import get_schedule


class Verdict(NamedTuple):
    """What a check found."""

    passed: bool
    message: str

    def __repr__(self) -> str:
        return self.message


class Wrong(Exception):
    """Raised inside a check with what is wrong, said to the learner."""


class Untouched(Exception):
    """Raised inside a check when the stub has not been filled in."""


def exercise(check: Callable[..., str]) -> Callable[..., Verdict]:
    """Turn a function that raises Wrong, or returns praise, into one that always returns a Verdict."""

    @wraps(check)
    def judged(*answer: Any) -> Verdict:
        try:
            return Verdict(True, f"Correct. {check(*answer)}")
        except (Untouched, NotImplementedError):
            return Verdict(False, "Not attempted yet. Replace the ... in the function above, then run this cell again.")
        except Wrong as wrong:
            return Verdict(False, f"Not yet: {wrong}")
        except Exception as error:
            return Verdict(False, f"Not yet: your function raised {type(error).__name__}: {error}")

    return judged


def answer_of(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call the learner's function. Raises Untouched if it returns nothing."""
    value = function(*arguments)
    if value is None or value is ...:
        raise Untouched
    return value


def tensor_of(function: Callable[..., Any], *arguments: Any, shape: tuple[int, ...], called: str) -> Tensor:
    """As answer_of, and check that the result is a tensor (or number) of this shape. Raises Wrong if it is not."""
    value = torch.as_tensor(answer_of(function, *arguments))
    if tuple(value.shape) != shape:
        raise Wrong(f"{called} should have the shape {shape}, yours has {tuple(value.shape)}.")
    if value.is_floating_point() and torch.isnan(value).any():
        raise Wrong(f"{called} holds NaN. Is there a 0 / 0, or a log of 0?")
    return value


def not_these(mine: Tensor, slips: dict[str, Tensor]) -> None:
    """Raise Wrong with the explanation of a known wrong answer if the learner's is that one."""
    for why, slip in slips.items():
        if mine.shape == slip.shape and torch.allclose(mine.double(), slip.double(), atol=1e-5):
            raise Wrong(f"{why}.")


# --------------------------------------------------------------------------------------------------- 00_start_here


def _counterexample(mine: Tensor, want: Tensor, cases: Sequence[object], what: str) -> None:
    """Raise Wrong with the first case (one per row) at which an answer is not the wanted one."""
    bad = (~torch.isclose(mine.double(), want.double(), rtol=1e-5, atol=1e-6)).nonzero()
    if len(bad):
        i = int(bad[0])
        raise Wrong(f"for {cases[i]} {what} should be {want[i]:.5g}, yours is {mine[i]:.5g}.")


@exercise
def check_hidden_tokens(hidden: Callable[[Tensor, int], Tensor]) -> str:
    """hidden(tokens, mask_id) -> how many tokens of each text are hidden, (B, L) ids to (B,)."""
    rng = Generator().manual_seed(10)
    for mask_id, B, L in ((1, 4, 6), (7, 3, 9)):
        tokens = torch.randint(0, 9, (B, L), generator=rng)
        tokens[0], tokens[1], tokens[2, :2] = mask_id, mask_id - 1, mask_id
        is_masked = tokens == mask_id
        if torch.as_tensor(answer_of(hidden, tokens, mask_id)).ndim == 0:
            raise Wrong(f"that is one number for all {B} texts together; sum over the positions of each: .sum(1).")
        mine = tensor_of(hidden, tokens, mask_id, shape=(B,), called="the counts")
        want = is_masked.sum(1)
        if torch.equal(mine, want):
            continue
        not_these(
            mine,
            {
                "you count the tokens that show; the hidden ones are those equal to mask_id": L - want,
                "that is the share of hidden tokens; the number is asked for": want / L,
                "you add up ids; compare with mask_id first, then count": want * mask_id,
                "you count the id 1, but this time MASK has another id; use mask_id": (tokens == 1).sum(1),
            },
        )
        _counterexample(mine, want, [f"{row} with mask_id = {mask_id}" for row in tokens.tolist()], "the count")
    return "One comparison, one sum over the positions."


@exercise
def check_story_length(length: Callable[[Tensor, int], Tensor]) -> str:
    """length(ids, eos_id) -> tokens before EOS in each canvas, (B, L) ids to (B,)."""
    rng = Generator().manual_seed(11)
    for eos_id, L in ((2, 8), (5, 12)):
        want = torch.tensor([3, L - 1, 1, L // 2])
        ids = torch.randint(6, 20, (4, L), generator=rng)
        place = torch.arange(L)
        ids = ids.where(place < want[:, None], 0).where(place != want[:, None], eos_id)
        mine = tensor_of(length, ids, eos_id, shape=(4,), called="the lengths")
        not_these(
            mine,
            {
                "one too many: EOS marks the end and is not part of the story": want + 1,
                "you count what comes after the story; the tokens before EOS are asked for": L - want - 1,
                "that is the whole canvas, padding included": torch.full((4,), L),
                "each canvas has exactly one EOS; where does it stand?": torch.ones(4),
            },
        )
        _counterexample(mine, want, [f"{row} with eos_id = {eos_id}" for row in ids.tolist()], "the length")
    return "Positions count from 0, so the place of EOS is the number of tokens before it."


@exercise
def check_guess_cost(cost: Callable[[int, int], float]) -> str:
    """cost(places, words) -> nats paid for guessing `places` tokens, each evenly among `words`."""
    cases = [(1, 2), (1, 100), (7, 10), (5, 166), (3, 1)]
    mine = torch.stack([tensor_of(cost, *case, shape=(), called="the cost").double() for case in cases])
    places, words = torch.tensor(cases, dtype=torch.float64).T
    not_these(
        mine,
        {
            "the cost is minus the log of the probability, and so never negative": -places * words.log(),
            "that is in bits; nats take the natural logarithm, math.log": places * words.log2(),
            "that is the cost of one token; the costs of independent guesses add up": words.log(),
            "that is a number of texts; its logarithm is the cost": words**places,
            "you use a logarithm to base 10; nats take the natural one, math.log": places * words.log10(),
            "that is log(places x words); the probability is (1 / words) to the power places": (places * words).log(),
        },
    )
    _counterexample(mine, places * words.log(), [f"{p} places and {w} words" for p, w in cases], "the cost")
    return "Probabilities multiply, so costs in nats add: places x ln(words)."


# ---------------------------------------------------------------------------------------------------------- 01_data


@exercise
def check_entropy(entropy: Callable[[Tensor], Tensor]) -> str:
    """entropy(probs) -> nats, (N,) probabilities to one number; impossible outcomes add nothing."""
    rng = Generator().manual_seed(12)
    for N in (2, 5, 16):
        probs = torch.rand(N, generator=rng, dtype=torch.float64).square()
        probs = probs / probs.sum()
        want = torch.special.entr(probs).sum()
        mine = tensor_of(entropy, probs, shape=(), called="the entropy").double()
        not_these(
            mine,
            {
                "the sign: surprise is MINUS log p": -want,
                "that is in bits; nats take the natural logarithm": want / math.log(2),
                "weigh each surprise by its probability, then sum; a plain mean treats all alike": -probs.log().mean(),
                "you take the mean of p log p; the weights p are the mean already, so sum": want / N,
                "you forgot the weights: likely outcomes count more": -probs.log().sum(),
            },
        )
        _counterexample(mine[None], want[None], [f"the probabilities {[round(p, 3) for p in probs.tolist()]}"], "it")
    mine = torch.as_tensor(entropy(torch.tensor([0.5, 0.0, 0.5], dtype=torch.float64)))
    if not abs(float(mine) - math.log(2)) < 1e-6:
        raise Wrong(
            f"probability 0 adds nothing, but [0.5, 0, 0.5] gives {float(mine):g}, not 0.693: 0 x log 0 is NaN, so drop it."
        )
    return "The mean surprise, in nats."


@exercise
def check_rule_out(rule_out: Callable[[Tensor, Tensor, Tensor, int], Tensor]) -> str:
    """rule_out(texts, probs, seen, mask_id) -> p(text | what is seen): (N, L) ids, (N,), (L,) ids with MASK to (N,)."""
    rng = Generator().manual_seed(13)
    for N, L in ((6, 3), (12, 4), (30, 5)):
        texts = torch.randint(2, 5, (N, L), generator=rng).unique(dim=0)
        probs = torch.rand(len(texts), generator=rng, dtype=torch.float64)
        probs = probs / probs.sum()
        seen = texts[0].where(torch.rand(L, generator=rng) < 0.5, 1)
        seen[0], seen[-1] = texts[0, 0], 1
        fits, equal = ((texts == seen) | (seen == 1)).all(1), (texts == seen).all(1)
        mine = tensor_of(rule_out, texts, probs, seen, 1, shape=(len(texts),), called="the posterior").double()
        want = probs * fits / (probs * fits).sum()
        if torch.allclose(mine, want, atol=1e-6):
            continue
        not_these(
            mine,
            {
                "right up to a factor: what is left must sum to 1 again, so divide by its sum": probs * fits,
                "the texts that fit are not equally likely; keep their own probabilities": fits / fits.sum(),
                "nothing was ruled out: set texts that disagree with a visible token to 0": probs,
                "a hidden position agrees with every text; compare the visible ones only": probs * equal,
            },
        )
        if torch.allclose(mine[~fits], torch.zeros(1).double()) and abs(float(mine.sum()) - 1) > 1e-6:
            raise Wrong(f"the posterior should sum to 1, yours sums to {mine.sum():.4f}.")
        cases = [f"the text {text} when {seen.tolist()} is seen (1 hides)" for text in texts.tolist()]
        _counterexample(mine, want, cases, "the probability")
    return "Rule out what disagrees, keep the proportions of the rest, and scale to 1: Bayes for a list of texts."


@exercise
def check_chunks(chunks: Callable[[list[list[int]], int, int], Any]) -> str:
    """chunks(documents, eos, length) -> chunks of `length` ids from the stream of documents, an EOS after each."""
    rng = Generator().manual_seed(14)
    for eos, length in ((2, 4), (99, 3), (2, 7)):
        sizes = torch.randint(1, 9, (6,), generator=rng).tolist()
        documents = [torch.randint(10, 50, (n,), generator=rng).tolist() for n in sizes]
        answer = answer_of(chunks, [list(document) for document in documents], eos, length)
        mine = [torch.as_tensor(chunk).tolist() for chunk in answer]

        def cut(stream: list[int], size: int = length) -> list[list[int]]:
            return [stream[i : i + size] for i in range(0, len(stream) - size + 1, size)]

        want = cut([i for document in documents for i in [*document, eos]])
        slips = {
            "there is no EOS between the documents; without it nobody can tell where one ends": cut(sum(documents, [])),
            "EOS comes after each document; yours comes before": cut([i for d in documents for i in [eos, *d]]),
            "each document was cut on its own and its tail lost; join all into one stream first": [
                chunk for document in documents for chunk in cut([*document, eos])
            ],
        }
        for why, slip in slips.items():
            if mine == slip and mine != want:
                raise Wrong(f"{why}.")
        odd = [chunk for chunk in mine if len(chunk) != length]
        if odd:
            raise Wrong(f"every chunk has {length} tokens, but yours has one of {len(odd[0])}: {odd[0]}. Drop the tail.")
        if mine != want:
            raise Wrong(f"{documents} with eos = {eos}, length = {length} should give {want}, yours gives {mine}.")
    return "One stream, an EOS after each document, equal pieces, and only the last tail is dropped."


# ---------------------------------------------------------------------------------------------- 02_noise_schedules


@exercise
def check_cosine_gamma(gamma: Callable[[Tensor, int], Tensor]) -> str:
    """gamma(t, T) -> masking rate of the cosine schedule, (B,) times to (B,) rates."""
    T = int(torch.randint(10, 2000, (), generator=Generator().manual_seed(0)))
    t = torch.linspace(0, T, 7, dtype=torch.float64)
    mine = tensor_of(gamma, t, T, shape=(7,), called="gamma")
    want = get_schedule("cosine", T).gamma(t)
    if torch.allclose(mine.double(), get_schedule("maskgit_cosine", T).gamma(t), atol=1e-4):
        raise Wrong("that is MaskGIT's mirrored cosine, which hides early. Ours starts slowly: 1 - cos(pi t / 2T).")
    wrong = (mine.double() - want).abs() > 1e-4
    if wrong.any():
        i = int(wrong.nonzero()[0])
        raise Wrong(f"with T = {T}, at t = {t[i]:.1f} the rate should be {want[i]:.4f}, yours is {float(mine[i]):.4f}.")
    return "Slow at first, then faster: 1 - cos(pi t / 2T)."


@exercise
def check_expected_masks(expected: Callable[[Tensor, Tensor], Tensor]) -> str:
    """expected(gamma, frozen) -> expected number of masks per row: (B,) rates and (B, L) bool to (B,)."""
    rng = Generator().manual_seed(1)
    gamma = torch.rand(4, generator=rng, dtype=torch.float64)
    frozen = torch.rand(4, 9, generator=rng) < torch.tensor([[0.0], [0.3], [0.6], [1.0]])
    mine = tensor_of(expected, gamma, frozen, shape=(4,), called="the expected number of masks").double()
    free = (~frozen).sum(1)
    not_these(
        mine,
        {
            "you count frozen positions too; they are never masked": gamma * 9,
            "you count the frozen positions, not the free ones; ~frozen turns a mask around": gamma * frozen.sum(1),
            "that many tokens stay visible on average; gamma is the chance of being hidden": (1 - gamma) * free,
            "that is the share of hidden tokens; multiply by L, or do not divide by it": gamma * free / 9,
        },
    )
    bad = (mine - gamma * free).abs() > 1e-4
    if bad.any():
        i = int(bad.nonzero()[0])
        raise Wrong(
            f"{int(free[i])} free tokens at gamma = {gamma[i]:.3f} give {gamma[i] * free[i]:.3f} masks on average, "
            f"yours is {mine[i]:.3f}."
        )
    return "Every free token adds gamma; frozen ones add nothing."


@exercise
def check_stay_masked(stay: Callable[[Tensor, Tensor], Tensor]) -> str:
    """stay(gamma_t, gamma_s) -> chance that a token masked at t is masked at the earlier s, (B,) and (B,) to (B,)."""
    gamma_t = torch.rand(6, generator=Generator().manual_seed(2), dtype=torch.float64) * 0.6 + 0.4
    gamma_s = gamma_t * torch.linspace(0, 0.9, 6, dtype=torch.float64)
    mine = tensor_of(stay, gamma_t, gamma_s, shape=(6,), called="the chance").double()
    not_these(
        mine,
        {
            "that is the chance of being revealed between t and s; its complement is asked for": 1 - gamma_s / gamma_t,
            "that is the chance of being masked at s knowing nothing; we know that it is masked at t": gamma_s,
            "that runs forward: visible at s, still visible at t": (1 - gamma_t) / (1 - gamma_s),
            "that is the chance of being hit between s and t; divide by what you know, masked at t": gamma_t - gamma_s,
        },
    )
    if (mine > 1 + 1e-9).any() or not torch.isfinite(mine).all():
        raise Wrong("a chance lies in [0, 1], yours does not. gamma_s is the smaller of the two, and may be 0.")
    bad = (mine - gamma_s / gamma_t).abs() > 1e-4
    if bad.any():
        i = int(bad.nonzero()[0])
        raise Wrong(
            f"at gamma_t = {gamma_t[i]:.3f}, gamma_s = {gamma_s[i]:.3f}, {gamma_s[i] / gamma_t[i]:.3f} of the masked "
            f"tokens were masked already; yours is {mine[i]:.3f}."
        )
    return "Of all that is masked at t, the share gamma_s / gamma_t was masked by s."


@exercise
def check_own_schedule(gamma: Callable[[Tensor, int], Tensor]) -> str:
    """gamma(t, T) -> any masking rate that a bound can live with: 0 at 0, 1 at T, never falling; (B,) to (B,)."""
    for T in (40, 1000):
        t = torch.linspace(0, T, 201, dtype=torch.float64)
        mine = tensor_of(gamma, t, T, shape=(201,), called="gamma").double()
        if mine[0] != 0:
            raise Wrong(f"gamma(0) is {float(mine[0]):g} and must be exactly 0: clean text has no masks.")
        if mine[-1] != 1:
            raise Wrong(
                f"gamma(T) is {float(mine[-1]):.17g} for T = {T} and must be exactly 1. A formula in tau = t / T "
                "serves every T; torch.where(t == T, 1.0, ...) mends rounding."
            )
        falls = (mine.diff() < -1e-12).nonzero()
        if len(falls):
            raise Wrong(f"with T = {T}, gamma falls after t = {t[int(falls[0])]:g}. What is masked must stay masked.")
    for name in ("linear", "cosine", "quadratic", "maskgit_cosine", "cosine_sq", "log"):
        if torch.allclose(mine, get_schedule(name, T).gamma(t), atol=1e-3):
            return f"It is a schedule, and a known one: {name}. Try one that the table does not have."
    half = t[int((mine >= 0.5).nonzero()[0])] / T
    return f"A schedule of your own: half of the text is gone at t / T = {half:.2f}."


# ---------------------------------------------------------------------------------------------------- 03_objective


@exercise
def check_discrete_weight(weight: Callable[[Tensor, Tensor, int], Tensor]) -> str:
    """weight(gamma_t, gamma_s, T) -> weight of a loss drawn at t = 1..T, s = t - 1, to estimate the bound."""
    T, t = 20, torch.arange(1, 21)
    cosine = get_schedule("cosine", T)
    gamma_t, gamma_s = cosine.gamma(t), cosine.gamma(t - 1)
    mine = tensor_of(weight, gamma_t, gamma_s, T, shape=(T,), called="the weight").double()
    want = T * (gamma_t - gamma_s) / gamma_t
    not_these(
        mine,
        {
            "that is the weight of one term of the sum; a draw of t stands for all T, so multiply by T": want / T,
            "that weights by the chance to stay masked; a token is paid for when it is revealed": T * gamma_s / gamma_t,
            "that is the chance to be hit in this step; divide by what is known, gamma_t": T * (gamma_t - gamma_s),
            "1 / gamma_t is right for the linear schedule only; here the step gamma_t - gamma_s varies": 1 / gamma_t,
        },
    )
    if not torch.isfinite(mine).all():
        raise Wrong("your weight is infinite or NaN at t = 1, where gamma_s = 0. Which gamma stands below the line?")
    bad = (mine - want).abs() > 1e-6
    if bad.any():
        i = int(bad.nonzero()[0])
        raise Wrong(
            f"T = {T}, gamma_t = {gamma_t[i]:.4f}, gamma_s = {gamma_s[i]:.4f}: the weight should be {want[i]:.4f}, "
            f"yours is {mine[i]:.4f}."
        )
    return "T times the chance that a token masked at t is revealed by the step to t - 1."


@exercise
def check_count_estimate(estimate: Callable[[Tensor, Tensor], Tensor]) -> str:
    """estimate(nats, is_masked) -> exact-count estimate of each row's bound: (B, L) and (B, L) bool to (B,) nats."""
    rng = Generator().manual_seed(3)
    is_masked = torch.rand(5, 8, generator=rng) < torch.tensor([[0.2], [0.4], [0.5], [0.7], [1.0]])
    is_masked[:, 3] = True
    nats = torch.rand(5, 8, generator=rng, dtype=torch.float64) * is_masked
    mine = tensor_of(estimate, nats, is_masked, shape=(5,), called="the estimate").double()
    total, count = nats.sum(1), is_masked.sum(1)
    not_these(
        mine,
        {
            "that is the plain sum; few masks then look cheap. Scale each row by its own L / k": total,
            "that is nats per masked token; times L it estimates the bound of the whole text": total / count,
            "you divide by L; multiply by L and divide by the number of masks k": total / 8,
            "your factor is upside down: L / k, not k / L": total * count / 8,
            "you divide by the average count; each row has its own k": 8 * total / count.double().mean(),
        },
    )
    want = 8 * total / count
    bad = (mine - want).abs() > 1e-5
    if bad.any():
        i = int(bad.nonzero()[0])
        raise Wrong(
            f"a row of L = 8 with {int(count[i])} masks that cost {total[i]:.3f} nats in all estimates {want[i]:.3f}, "
            f"yours is {mine[i]:.3f}."
        )
    return "L / k times the loss of the k masked tokens: unbiased when k is uniform on 1..L."


@exercise
def check_report(report: Callable[[Tensor, Tensor], Any]) -> str:
    """report(nats, tokens) -> (perplexity, bits per token) of a test set: bounds (N,) nats and lengths (N,) tokens."""
    tokens = torch.tensor([4, 30, 12, 7])
    nats = tokens * torch.tensor([2.1, 0.4, 1.3, 3.0], dtype=torch.float64)
    answer = answer_of(report, nats, tokens)
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        raise Wrong(f"return two numbers, (perplexity, bits per token); yours is {type(answer).__name__}.")
    if all(part is ... or part is None for part in answer):
        raise Untouched
    perplexity, bits = (float(part) for part in answer)
    rate = nats.sum() / tokens.sum()
    not_these(
        torch.tensor(perplexity),
        {
            "you average perplexities; average nats first, exponentiate last": (nats / tokens).exp().mean(),
            "a short text weighs as much as a long one; divide all nats by all tokens": (nats / tokens).mean().exp(),
            "that is the perplexity of a whole text; divide by tokens before exp": nats.mean().exp(),
            "these are nats, so the base is e, not 2": 2**rate,
        },
    )
    not_these(
        torch.tensor(bits),
        {
            "1 nat is 1.4427 bits: divide by ln 2, do not multiply": rate * math.log(2),
            "the second number is still in nats; divide by ln 2": rate,
            "bits: a short text weighs as much as a long one": (nats / tokens).mean() / math.log(2),
        },
    )
    for name, value, want in (("perplexity", perplexity, rate.exp()), ("bits per token", bits, rate / math.log(2))):
        if not abs(value - float(want)) < 1e-3:
            raise Wrong(f"{nats.sum():.1f} nats in {tokens.sum()} tokens are {want:.3f} {name}, yours is {value:.3f}.")
    return "All nats over all tokens, and only then exp or / ln 2."


# ---------------------------------------------------------------------------------------------------- 04_model


@exercise
def check_block_parameters(count: Callable[[int, int, int], int]) -> str:
    """count(D, heads, inner) -> number of trained numbers in one block without time."""
    for D, heads, inner in ((8, 2, 20), (16, 4, 64), (128, 4, 512), (512, 8, 2048)):
        K = D // heads
        config = DenoiserConfig(hidden_size=D, num_heads=heads, intermediate_size=inner)
        with torch.device("meta"):
            want = parameter_count(Block(config))
        mine = int(tensor_of(count, D, heads, inner, shape=(), called="the count"))
        slips = {
            inner + D: "the two biases of the network are missing: inner + D.",
            2 * D: "the scales of the two layer norms before attention and network are missing: D each.",
            2 * K: "the norms of queries and keys are missing: each has one scale per channel of a head.",
            2 * D + 2 * K: "the layer norms are missing: two of width D, and two of width D / heads.",
            2 * D + 2 * K + inner + D: "the biases of the network and the scales of the norms are missing.",
            D * D: "one D x D matrix of attention is missing: query, key, value and out make four.",
            -4 * D: "the four matrices of attention have no bias.",
            2 * K - 2 * D: "the norms of queries and keys are shared by all heads: their width is D / heads, not D.",
        }
        if mine != want:
            hint = slips.get(want - mine, "go through print(Block(...)) line by line.")
            raise Wrong(f"for D={D}, heads={heads}, inner={inner} the block has {want}, you count {mine}; {hint}")
    return f"With inner = 4 D that is 12 D squared and a little; nano has {SIZES['nano']['num_layers']} of them."


@exercise
def check_turn(turn: Callable[[Tensor, Tensor], Tensor]) -> str:
    """turn(x, angles) -> x with each pair of channels turned, (L, K) and (L, K / 2) to (L, K)."""
    rng = Generator().manual_seed(4)
    L, K = 9, 8
    angles = torch.arange(L, dtype=torch.float64)[:, None] * torch.tensor([1.0, 0.5, 0.2, 0.1], dtype=torch.float64)
    query, key = (torch.randn(K, generator=rng, dtype=torch.float64).expand(L, K) for _ in range(2))
    q, k = (tensor_of(turn, x, angles, shape=(L, K), called="turn").double() for x in (query, key))
    if not torch.allclose(q[0], query[0], atol=1e-6):
        raise Wrong("at position 0 every angle is 0, so nothing may change there, but your vector does.")
    if torch.allclose(q, query, atol=1e-6):
        raise Wrong("your function returns what it was given, at every position. Use the angles.")
    if not torch.allclose(q.norm(dim=-1), query.norm(dim=-1), atol=1e-6):
        i = int((q.norm(dim=-1) - query.norm(dim=-1)).abs().argmax())
        raise Wrong(
            f"a turn keeps the length of a vector; at position {i} yours goes from {query[i].norm():.3f} to "
            f"{q[i].norm():.3f}. Is there one minus sign among the two sines?"
        )
    scores = q @ k.T
    for i, j in ((5, 2), (8, 5), (2, 6)):
        if not torch.isclose(scores[i, j], scores[i - 2, j - 2], atol=1e-6):
            raise Wrong(
                f"the score of a query at {i} and a key at {j} is {scores[i, j]:.3f}, but the same pair two places to "
                f"the left scores {scores[i - 2, j - 2]:.3f}. It should depend on the distance only."
            )
    still = [i for i in range(K) if torch.allclose(q[:, i], query[:, i], atol=1e-6)]
    if still:
        raise Wrong(f"channels {still} never move. All K channels belong to a pair, and every pair turns.")
    return "Lengths stay, and the score of a query and a key depends on their distance only."


class _Watched:
    """A denoiser that notes what it was asked."""

    def __init__(self, model: Denoiser):
        self.model, self.config, self.calls = model, model.config, []  # type: ignore[var-annotated]

    def __call__(self, xt: Tensor, t: Tensor | float = 0.0, where: Tensor | None = None) -> Tensor:
        self.calls.append((xt.clone(), where))
        return self.model(xt, t, where)


@exercise
def check_hidden_nats(hidden_nats: Callable[[Any, Tensor, Tensor], Tensor]) -> str:
    """hidden_nats(model, x0, is_masked) -> (N,) nats, the loss of each hidden token, with the head run there only."""
    rng = Generator().manual_seed(7)
    for B, L, V in ((1, 5, 6), (3, 8, 11)):
        mask_id = V - 1
        model = Denoiser(DenoiserConfig(V, mask_id, hidden_size=8, num_layers=1, num_heads=2, max_length=L)).eval()
        model.requires_grad_(False)
        for weight in model.parameters():  # large enough that different canvases give different numbers
            weight.normal_(generator=rng)
        x0 = torch.randint(0, mask_id, (B, L), generator=rng)
        is_masked = torch.rand(B, L, generator=rng) < 0.5
        is_masked[:, 0], is_masked[:, 1] = True, False
        xt, N, watched = x0.masked_fill(is_masked, mask_id), int(is_masked.sum()), _Watched(model)
        want = -model(xt, 0.0).log_softmax(-1).gather(-1, x0[..., None])[..., 0][is_masked]
        mine = tensor_of(hidden_nats, watched, x0, is_masked, shape=(N,), called="the losses").float()
        if not watched.calls:
            raise Wrong("your function never calls the model.")
        shown, where = watched.calls[-1]
        if torch.equal(shown, x0):
            raise Wrong("the model was shown x0 itself, with every answer on it. Hide the tokens first.")
        if not torch.equal(shown, xt):
            raise Wrong("the model should see MASK where is_masked is True, and the true token elsewhere.")
        if torch.allclose(mine, -want, atol=1e-4):
            raise Wrong("these are log-probabilities, which are negative; the loss is minus that.")
        if torch.allclose(mine, want / torch.tensor(2.0).log(), atol=1e-4):
            raise Wrong("these are bits; use the natural logarithm, which gives nats.")
        if not torch.allclose(mine, want, atol=1e-4):
            i = int((mine - want).abs().argmax())
            raise Wrong(f"the loss of hidden token {i} should be {want[i]:.4f} nats, yours is {mine[i]:.4f}.")
        if where is None:
            raise Wrong(f"the numbers are right, but the head ran at {B * L} positions for the sake of {N}: pass where.")
    return "Same numbers as with all positions, and no work for those that nobody asked about."


# ---------------------------------------------------------------------------------------------------- 05_training


@exercise
def check_stratified(stratified: Callable[[Tensor, int], Tensor]) -> str:
    """stratified(u, T) -> whole times in 1..T, one from each of B equal slices, from (B,) uniform numbers in [0, 1)."""
    rng = Generator().manual_seed(5)
    for B, T in ((4, 1000), (8, 1000), (5, 60)):
        u = torch.rand(B, generator=rng)
        mine = tensor_of(stratified, u, T, shape=(B,), called="the times")
        if mine.is_floating_point() and not torch.equal(mine, mine.round()):
            raise Wrong(f"the times should be whole numbers, yours begin {mine[0]:.3f}; round down, then add 1.")
        slices = torch.arange(B)
        want = ((slices + u.double()) / B * T).long() + 1
        not_these(
            mine,
            {
                "that scatters each time over the whole axis; row i should stay in slice i of B": (u * T).long() + 1,
                "yours run from 0 to T - 1; the times are 1..T": want - 1,
                "every slice got the same offset: use its own u[i], not u[0]": ((slices + u[0]) / B * T).long() + 1,
                "the slices are there, but nothing is drawn within them: u is not used": (slices / B * T).long() + 1,
            },
        )
        if mine.min() < 1 or mine.max() > T:
            raise Wrong(f"times lie in 1..{T}, yours in {mine.min():g}..{mine.max():g}. Divide by B to stay there.")
        off = (mine.double().sort().values - want).abs() > 1  # 1: rounding in float32 is forgiven
        if off.any():
            i = int(off.nonzero()[0])
            raise Wrong(
                f"B = {B}, T = {T}: slice {i} with u = {u[i]:.3f} gives time {int(want[i])}, yours is "
                f"{mine.sort().values[i]:g}."
            )
    last = tensor_of(stratified, torch.full((8,), 1 - 2**-24), 1000, shape=(8,), called="the times").max()
    if last > 1000:
        raise Wrong(
            "u can be as large as 1 - 2^-24, the last float32 below 1, and then your last time is T + 1: 7 + u rounds "
            "to 8. Clamp the times to T, or count in float64."
        )
    return "One time in each slice, uniform within it, never 0 and never T + 1."


@exercise
def check_average(average: Callable[[Tensor, float], Any]) -> str:
    """average(values, keep) -> exponential moving average after the last value; it starts at the first. (N,) to ()."""
    values = torch.randn(12, generator=Generator().manual_seed(6), dtype=torch.float64) + 2
    for keep in (0.9, 0.7):
        want, swapped, from_zero = values[0].clone(), values[0].clone(), torch.zeros((), dtype=torch.float64)
        for value in values[1:]:
            want, swapped = keep * want + (1 - keep) * value, (1 - keep) * swapped + keep * value
        for value in values:
            from_zero = keep * from_zero + (1 - keep) * value
        mine = tensor_of(average, values, keep, shape=(), called="the average").double()
        slips = {
            "that is the plain mean; the latest value should weigh most": values.mean(),
            "that is the last value alone; nothing of the past is kept": values[-1],
            "you started from 0, which drags the average down; start at the first value": from_zero,
            "the two weights are swapped: the past keeps `keep`, the new value gets 1 - keep": swapped,
        }
        not_these(mine, slips)
        if not torch.isclose(mine, want, atol=1e-6):
            raise Wrong(f"12 values with keep = {keep} end at {want:.4f}, yours at {mine:.4f}.")
    return "Started at the first value, and most of its weight lies on the last 1 / (1 - keep) values."


@exercise
def check_warmth(warmth: Callable[[int, int, int, float], Any]) -> str:
    """warmth(step, steps, warmup, decay) -> share of the full learning rate; step counts from 0."""
    for steps, warmup, decay in ((100, 10, 0.4), (240, 20, 0.25)):
        for step in (0, warmup // 2, warmup - 1, steps // 2, steps - steps // 10, steps - 1):
            left = (steps - step) / (decay * steps)
            cosine = 0.5 - 0.5 * math.cos(math.pi * min(1.0, left))
            want = min(1.0, (step + 1) / warmup) * cosine
            mine = tensor_of(warmth, step, steps, warmup, decay, shape=(), called="the share").double()
            where = f"at step {step} of {steps} (warmup {warmup}, decay {decay})"
            slips = {}
            if step < warmup:
                slips[f"{where} yours is step / warmup, so step 0 is lost at rate 0; use step + 1"] = step / warmup
                slips[f"{where} the warm-up is not over, but your rate is full"] = 1.0
            if left < 1:
                slips[f"{where} yours falls along a straight line; a half cosine is asked for"] = left
                slips[f"{where} your rate rises as the run ends: the cosine is upside down"] = 1 - cosine
                slips[f"{where} the decay has begun, but your rate is still full"] = 1.0
            whole = 0.5 + 0.5 * math.cos(math.pi * step / steps)
            slips[f"{where} your decay is spread over the whole run; it takes only the last share `decay`"] = whole
            slips = {why: slip for why, slip in slips.items() if abs(slip - want) > 1e-3}
            not_these(mine, {why: torch.tensor(slip) for why, slip in slips.items()})
            if abs(float(mine) - want) > 1e-4:
                raise Wrong(f"{where} the share should be {want:.4f}, yours is {float(mine):.4f}.")
    return "Up a straight line, along a plain, down half a cosine."


@exercise
def check_reach(reach: Callable[[float, float, float, float], Any]) -> str:
    """reach(progress, start, hold, ramp) -> largest t / T after this share of the run."""
    for start, hold, ramp in ((0.25, 0.4, 0.3), (0.1, 0.2, 0.5)):
        for progress in (0.0, hold / 2, hold, hold + ramp / 3, hold + ramp / 2, hold + ramp, 0.95):
            climbed = (progress - hold) / ramp
            want = start if progress < hold else min(1.0, start + (1 - start) * climbed)
            mine = float(tensor_of(reach, progress, start, hold, ramp, shape=(), called="the reach"))
            where = f"at progress {progress:.2f} (start {start}, hold {hold}, ramp {ramp})"
            slips = {
                "yours passes 1, a time beyond T; stop there": (start + (1 - start) * climbed, mine > 1),
                "yours rises from 0, not from start": (climbed, True),
                "yours begins to widen at once; hold comes first": (start + (1 - start) * progress / ramp, True),
                "ramp is how long the widening takes, not where it ends": (
                    start + (1 - start) * (progress - hold) / (ramp - hold) if ramp != hold else math.nan, True,
                ),
                "yours adds a whole 1 on the way; only 1 - start is left to climb": (start + climbed, True),
                "yours jumps to the full range; it should widen little by little": (1.0, progress > hold),
            }  # fmt: skip
            for why, (slip, possible) in slips.items():
                if possible and abs(slip - want) > 1e-4 and abs(mine - slip) < 1e-6:
                    raise Wrong(f"{where}: {why}.")
            if abs(mine - want) > 1e-6:
                raise Wrong(f"{where} the reach should be {want:.4f}, yours is {mine:.4f}.")
    return "Little first, then more, then everything."


# ------------------------------------------------------------------------------------------------------- 06_sampling


@exercise
def check_reveal_counts(counts: Callable[[int, int], Any]) -> str:
    """counts(masked, steps) -> how many tokens to reveal at each step: whole numbers, as even as can be."""
    for masked, steps in ((48, 12), (48, 7), (5, 8), (1, 3), (0, 4), (13, 13), (37, 5)):
        mine = list(answer_of(counts, masked, steps))
        where = f"{masked} masks in {steps} steps"
        if len(mine) != steps:
            raise Wrong(f"{where}: the list has {len(mine)} entries, one for each step are needed.")
        if any(n != int(n) or n < 0 for n in mine):
            raise Wrong(f"{where}: {mine} holds something that is not a whole number of tokens, 0 or more.")
        if sum(mine) < masked:
            raise Wrong(f"{where}: {mine} reveals {sum(mine)}; {masked - sum(mine)} would stay masked for ever.")
        if sum(mine) > masked:
            raise Wrong(f"{where}: {mine} reveals {sum(mine)}, more than there are. Rounding up at every step?")
        if max(mine) - min(mine) > 1:
            raise Wrong(f"{where}: {mine} is uneven; no step should reveal over one token more than another.")
    return "Nothing is left over and no step is crowded."


@exercise
def check_tempered(tempered: Callable[[Tensor, float], Any]) -> str:
    """tempered(probs, temperature) -> the distribution sharpened or flattened, (V,) to (V,); temperature > 0."""
    rng = Generator().manual_seed(3)
    for temperature in (0.5, 2.0, 0.8):
        probs = torch.rand(6, generator=rng, dtype=torch.float64).softmax(0) ** 2
        probs[2] = 0
        probs = probs / probs.sum()
        mine = tensor_of(tempered, probs, temperature, shape=(6,), called="the tempered distribution").double()
        power = probs ** (1 / temperature)
        backwards = probs**temperature
        slips = {
            "dividing probabilities changes nothing once they are normalised; divide their logarithms": probs,
            "that flattens where it should sharpen: the power is 1 / temperature": backwards / backwards.sum(),
            "that is a softmax of probabilities; it needs their logarithms": (probs / temperature).softmax(0),
            "the powers are right, but they do not add up to 1 any more": power,
        }
        not_these(mine, slips)
        want = power / power.sum()
        if (mine - want).abs().max() > 1e-5:
            i = int((mine - want).abs().argmax())
            raise Wrong(
                f"at temperature {temperature} probability {probs[i]:.3f} becomes {want[i]:.3f}, yours {mine[i]:.3f}."
            )
    return "p to the power 1 / temperature, normalised again; what was impossible stays impossible."


@exercise
def check_nucleus(nucleus: Callable[[Tensor, float], Any]) -> str:
    """nucleus(probs, p) -> top-p: the distribution with its tail cut off, (V,) to (V,), tokens in their old order."""
    for size in (3, 1, 5, 8):
        probs = torch.randn(8, generator=Generator().manual_seed(size), dtype=torch.float64).softmax(0)
        ranked, order = probs.sort(descending=True)
        p = 1.0 if size == 8 else round(float(ranked[:size].sum() - ranked[size - 1] / 2), 4)
        mine = tensor_of(nucleus, probs, p, shape=(8,), called="the nucleus").double()
        want = probs * torch.zeros(8).bool().scatter(0, order[:size], True)
        short = probs * torch.zeros(8).bool().scatter(0, order[: max(1, size - 1)], True)
        slips = {
            "the right tokens are kept, but they do not add up to 1": want,
            "you return the tokens sorted; put each back in its own place (scatter, or compare with the last kept "
            "probability)": (want / want.sum()).sort(descending=True).values,
            "the token that crosses the line is missing. Keep it: the kept mass must reach p": short / short.sum(),
            "that keeps tokens whose own probability reaches p; it is their running sum that counts": (
                probs * (probs >= p) / (probs * (probs >= p)).sum().clamp(min=1e-9)
            ),
        }  # fmt: skip
        slips = {why: slip for why, slip in slips.items() if not torch.allclose(slip, want / want.sum(), atol=1e-5)}
        not_these(mine, slips)
        if (mine - want / want.sum()).abs().max() > 1e-5:
            raise Wrong(
                f"from {[round(float(q), 3) for q in probs]} and p = {p}, {size} tokens are kept; "
                f"you keep {int((mine > 0).sum())}, with a sum of {float(mine.sum()):.3f}."
            )
    return "The smallest set that reaches p, the token that crosses the line included."


@exercise
def check_agree(agree: Callable[[Tensor, int], Any]) -> str:
    """agree(probs, places) -> chance that `places` independent draws from probs (V,) all show the same word."""
    for seed, places in ((8, 2), (9, 3), (10, 1)):
        probs = (2 * torch.randn(5, generator=Generator().manual_seed(seed), dtype=torch.float64)).softmax(0)
        mine = tensor_of(agree, probs, places, shape=(), called="the chance").double()
        want = (probs**places).sum()
        slips = {
            "that holds only if all words are equally likely": torch.tensor(1 / 5).double() ** (places - 1),
            "that is the chance for the likeliest word alone; any common word will do": probs.max() ** places,
            "that is the chance that they do not all agree": 1 - want,
            "that is the answer for two places, whatever their number": (probs**2).sum(),
        }
        not_these(mine, {why: slip for why, slip in slips.items() if abs(float(slip - want)) > 1e-4})
        if abs(float(mine - want)) > 1e-5:
            raise Wrong(f"{places} draws from {[round(float(q), 3) for q in probs]} agree with {want:.4f}, "
                        f"yours says {float(mine):.4f}.")  # fmt: skip
    return "Each word v wins p(v) to the power of the number of places; the words exclude each other, so add."
