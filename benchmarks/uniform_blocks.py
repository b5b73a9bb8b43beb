"""Notebook 18's stored tables: diffusers' schedulers against exact laws on micro, and exact denoisers under masks,
uniform and hybrid noise: 24 calls for the 48 tokens of tales, 48 calls for the 256 tokens of sagas; and the shipped
models of tales in 12, 24 and 48 calls.

    python benchmarks/uniform_blocks.py judges
    python benchmarks/uniform_blocks.py tales [words in the name of a row]
    python benchmarks/uniform_blocks.py sagas "hybrid, share 0.1"
    python benchmarks/uniform_blocks.py trained

Rows replace those of the same name in results/uniform_blocks.json. diffusers is needed for the judges alone.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from diffkit import (
    D3PM,
    SEDD,
    UDLM,
    HybridDiffusion,
    MaskedDiffusion,
    denoise_frames,
    entropy_bounded,
    load_language,
    load_model,
    sample,
)
from diffkit.course.uniform_blocks.exact import Tabulated, next_law, sample_in_blocks, time_agnostic, words_of
from diffkit.course.uniform_blocks.judges import AsScheduler, entropy_bounded_law, judge, markov_law, run_scheduler
from diffkit.course.uniform_blocks.renoising import Corrected, EntropyBounded
from diffkit.evaluation.statistics import wilson
from diffkit.io import write_json
from diffkit.languages.story_language import StoryLanguage
from diffkit.model import DiffusionModel
from diffkit.processes.base import Denoise
from diffkit.sampling.sampler import Ancestral
from diffkit.sampling.skipping import even_times

RESULTS = Path(__file__).parent / "results" / "uniform_blocks.json"
DRAWS, STORIES = 10_000, {"tales": 64, "sagas": 8, "trained": 256}
CALLS, BLOCKS = {"tales": 24, "sagas": 48}, {"tales": (8, 16), "sagas": (32, 64)}
SHIPPED = ("tales-mdlm", "tales-hybrid", "tales-udlm")
micro = load_language("micro")


def seeded(seed: int) -> Generator:
    return Generator().manual_seed(seed)


# ------------------------------------------------------------------------------------------------------- the schedulers


def judges() -> Iterator[dict[str, Any]]:
    """Rows of a table: scheduler, its settings, calls, chi-square against the law it should have, distance to micro."""
    from diffusers import BlockRefinementScheduler, DiscreteDDIMScheduler, EntropyBoundScheduler

    process = D3PM(micro.vocab_size, micro.mask_id, "uniform", reverse="mixture")
    masked = MaskedDiffusion(micro.vocab_size, micro.mask_id, "linear")
    timed = Tabulated(micro, micro.denoiser(process))
    timeless = Tabulated(micro, time_agnostic(micro, process, 16), ignores_time=True)

    def row(name: str, settings: str, steps: int, drawn: Tensor, law: Tensor | None) -> dict[str, Any]:
        found = {
            "name": ", ".join(filter(None, (name, settings, str(steps)))),
            "calls": steps,
            "off_drawn": distance(drawn),
        }
        if law is not None:
            found |= judge(micro, drawn, law, timed.states)._asdict()
        return found

    for steps in (1, 4, 8):
        law = markov_law(timed, process, steps)
        for name, scheduler, how in (
            ("DiscreteDDIM", DiscreteDDIMScheduler(), {"temperature": 1.0}),
            ("DiscreteDDIM", DiscreteDDIMScheduler(), {}),
            ("diffkit's D3PM", AsScheduler(process), {}),
        ):
            drawn = run_scheduler(scheduler, micro, timed, n=DRAWS, steps=steps, rng=seeded(steps), **how)
            settings = "temperature 1" if how else "temperature 0 (default)" if "DDIM" in name else ""
            yield row(name, settings, steps, drawn, law)
    for temperatures in ((0.8, 0.4), (1.0, 1.0)):
        scheduler = EntropyBoundScheduler(t_max=temperatures[0], t_min=temperatures[1])
        law = entropy_bounded_law(timeless, 16, temperatures=temperatures)
        drawn = run_scheduler(scheduler, micro, timeless, n=DRAWS, steps=16, rng=seeded(1))
        yield row("EntropyBound", f"temperature {temperatures[0]:g} to {temperatures[1]:g}", 16, drawn, law)
    for name, denoise, how in (
        ("uniform noise", timeless, {}),
        ("masks", micro.denoiser(masked), {"mask_token_id": micro.mask_id}),
    ):
        scheduler = BlockRefinementScheduler(block_length=micro.length)
        drawn = run_scheduler(
            scheduler, micro, denoise, n=4000, steps=micro.length, rng=seeded(2), temperature=1.0, **how
        )
        yield row("BlockRefinement", f"{name}, temperature 1", micro.length, drawn, None)
    yield from correctors(process, timed)


def correctors(process: D3PM, timed: Tabulated) -> Iterator[dict[str, Any]]:
    """`step_correct` eight times, from canvases at alpha = 0.9: does their law stay?"""
    from diffusers import DiscreteDDIMScheduler

    start, _ = process.corrupt(micro.sample(DRAWS, seeded(3)), 100.0, seeded(4))
    law = noisy_law(process, timed, 100.0)
    words = words_of(micro)
    for selection, k in (("random", 1), ("lowest_log_margin", 1), ("random", 2)):
        scheduler, z, rng = DiscreteDDIMScheduler(10, corrector_k=k, corrector_selection=selection), start, seeded(5)
        for _ in range(8):
            columns = torch.searchsorted(words, z)
            logits = timed(z, torch.tensor([100.0]))[..., words]
            z = words[scheduler.step_correct(logits, 8, columns, generator=rng).prev_sample]
        found = judge(micro, z, law, timed.states)._asdict() | {"off": None}
        settings = f"{selection}, {k} at once" + (" (default)" if "margin" in selection else "")
        yield {"name": f"DiscreteDDIM.step_correct, {settings}", "calls": 8, "off_drawn": None} | found


def noisy_law(process: D3PM, timed: Tabulated, t: float) -> Tensor:
    """(K^L,) the law of z_t."""
    p = micro.log_prob(timed.states).exp()
    one_hot = torch.nn.functional.one_hot(timed.states, micro.vocab_size).double()
    tokens = process.transitions.marginal(one_hot, 0, t)
    return next_law(p, tokens[..., words_of(micro)])


def distance(drawn: Tensor) -> float:
    """Total variation of the shares of the 16 texts, and of all else, to micro; draws alone leave about 0.01."""
    texts, which = drawn.unique(dim=0, return_inverse=True)
    found = torch.bincount(which, minlength=len(texts)).double() / len(drawn)
    truth = micro.log_prob(texts).exp()
    return float((found - truth).clamp(min=0).sum())


# -------------------------------------------------------------------------------------------------------- a few calls


def ways(part: str) -> dict[str, Callable[[Generator], Tensor]]:
    """How to draw the stories of a language, by name."""
    language, calls = load_language(part), CALLS[part]
    V, mask, L = language.vocab_size, language.mask_id, language.length
    mdlm, shape = MaskedDiffusion(V, mask, "linear"), (STORIES[part], L)
    hybrids = {share: HybridDiffusion(V, mask, share) for share in (0.03, 0.1)}
    udlm, gemma = UDLM(V, mask), D3PM(V, mask, "uniform", reverse="mixture")

    def plain(process: Any, **how: Any) -> Callable[[Generator], Tensor]:
        how = {"steps": calls} | how
        if how["steps"] is None:
            del how["steps"]
        denoise = language.denoiser(getattr(process, "process", process))
        return lambda rng: sample(process, denoise, shape=shape, rng=rng, **how)

    def blocks(process: Any, size: int) -> Callable[[Generator], Tensor]:
        times = even_times(process.T, calls * size // L)
        return lambda rng: sample_in_blocks(language, Ancestral(process, times), shape[0], size, rng)

    return {
        "masked, random order": plain(mdlm, order="random"),
        "masked, reverse steps": plain(mdlm),
        "masked, least entropy first": plain(mdlm, order="entropy"),
        "masked, entropy bound 0.1": plain(entropy_bounded(mdlm, 0.1), steps=None),
        **{f"hybrid, share {share:g}": plain(process) for share, process in hybrids.items()},
        "uniform": plain(udlm),
        "uniform, corrected": plain(Corrected(udlm, calls), steps=None),
        "hybrid 0.1, corrected": plain(Corrected(hybrids[0.1], calls), steps=None),
        **{f"{name}, blocks of {size}": blocks(process, size) for size in BLOCKS[part]
           for name, process in (("masked", mdlm), ("hybrid 0.1", hybrids[0.1]), ("uniform", udlm))},
        "uniform, time-agnostic": lambda rng: sample(
            gemma, time_agnostic(language, gemma, 8), shape=(32, L), steps=calls, rng=rng
        ),
        "DiffusionGemma's sampler, time-agnostic": lambda rng: sample(
            EntropyBounded(gemma, calls), time_agnostic(language, gemma, 8), shape=(32, L), rng=rng
        ),
    }  # fmt: skip


def calls_to_the_bound(part: str, denoise: Denoise | None = None) -> float:
    """How many calls a story takes on average with masks and an entropy bound of 0.1."""
    language = load_language(part)
    process = MaskedDiffusion(language.vocab_size, language.mask_id, "linear")
    shape = (STORIES[part], language.length)
    denoise = denoise or language.denoiser(process)
    frames = denoise_frames(entropy_bounded(process, 0.1), denoise, shape=shape, rng=seeded(18))
    return float(torch.stack([(frame.z == language.mask_id).any(1) for frame in frames]).sum(0).double().mean())


def stories(part: str, only: str) -> Iterator[dict[str, Any]]:
    """Valid stories of the exact denoiser, with 95 % intervals; one seed."""
    for name, draw in ways(part).items():
        if only in name:
            calls = calls_to_the_bound(part) if "entropy bound" in name else CALLS[part]
            yield judged(name, load_language(part), draw(seeded(18)), calls)


def trained(only: str) -> Iterator[dict[str, Any]]:
    """The same of the shipped models with masks, with hybrid and with uniform noise."""
    language, models = load_language("tales"), {name: load_model(name) for name in SHIPPED}
    masked = models["tales-mdlm"]
    rows: list[tuple[str, Any, Denoise, int | None, dict[str, Any]]] = [
        (", ".join(filter(None, (name, filters, f"{calls} calls"))), model.process, model, calls, how)
        for filters, how in (("", {}), ("top-p 0.9", {"top_p": 0.9}))
        for calls in (12, 24, 48)
        for name, model in models.items()
    ]
    rows.append(("tales-mdlm, entropy bound 0.1", entropy_bounded(masked.process, 0.1), masked, None, {}))
    rows += [(f"{name}, 64 calls", *each, 64, {}) for name, each in same_network(models["tales-udlm"]).items()]
    for name, process, denoise, calls, how in rows:
        if only in name:
            rng, shapes = seeded(18), [(64, language.length)] * (STORIES["trained"] // 64)
            drawn = torch.cat([sample(process, denoise, shape=shape, steps=calls, rng=rng, **how) for shape in shapes])
            yield judged(name, language, drawn, calls or calls_to_the_bound("tales", denoise))


def same_network(model: DiffusionModel) -> dict[str, tuple[Any, Denoise]]:
    """One network that predicts a token from the others, by the steps of three papers: process and denoiser by name.

    D3PM's joint form takes that prediction as it is, SEDD the ratios that follow from it.
    """
    udlm = model.process
    noise = (udlm.vocab_size, udlm.mask_id, "uniform", "linear")

    def ratios(zt: Tensor, t: Tensor, where: Tensor | None = None) -> Tensor:
        return udlm.log_score(model(zt, t), zt, t)

    return {
        "tales-udlm": (udlm, model), "tales-udlm, D3PM's steps": (D3PM(*noise), model),
        "tales-udlm, SEDD's Tweedie": (SEDD(*noise), ratios),
        "tales-udlm, SEDD's Euler": (SEDD(*noise, sampler="euler"), ratios),
    }  # fmt: skip


def judged(name: str, language: StoryLanguage, drawn: Tensor, calls: float) -> dict[str, Any]:
    """A row: how many texts are valid, and how likely those are."""
    log_p = language.log_prob(drawn)
    valid = log_p[log_p > -torch.inf]
    low, high = wilson(len(valid), len(drawn))
    nats = float(-valid.mean()) if len(valid) else None
    return {
        "name": name, "stories": len(drawn), "valid": len(valid) / len(drawn), "low": low, "high": high,
        "nats_of_valid": nats, "calls": calls,
    }  # fmt: skip


def main() -> None:
    """Make the rows, store each as it is done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["judges", "trained", *CALLS])
    parser.add_argument("only", nargs="?", default="", help="only rows whose name holds this")
    options = parser.parse_args()
    found = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    settings: dict[str, Any] = {"torch": torch.__version__.split("+")[0]}
    if options.part == "judges":
        settings, made = settings | {"diffusers": version("diffusers"), "draws": DRAWS}, judges()
    elif options.part == "trained":
        settings, made = settings | {"seed": 18}, trained(options.only)
    else:
        settings |= {"calls": CALLS[options.part], "seed": 18, "entropy_nats": load_language(options.part).entropy()}
        made = stories(options.part, options.only)
    rows = {row["name"]: row for row in found.get(options.part, {}).get("rows", [])}
    for row in made:
        print(row, flush=True)
        rows[row["name"]] = row
        found[options.part] = {"settings": settings, "rows": list(rows.values())}
        write_json(RESULTS, found)


if __name__ == "__main__":
    main()
