"""Notebook 16's stored tables of perfect knowledge: every method with its exact denoiser on `micro`, by network calls,
and the generative frontier of one order on `tales`, exact denoiser and shipped models, by steps and temperature.

    python benchmarks/perfect_knowledge.py micro        # two minutes on one core
    python benchmarks/perfect_knowledge.py frontier     # two minutes

Rows go to results/perfect_knowledge.json as they are done, and those that stand there are not made again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from diffkit import D3PM, UDLM, HybridDiffusion, MaskedDiffusion, entropy_bounded, load_language, load_model, sample
from diffkit.course.exercises.methods.capstone import one_question
from diffkit.course.experiments.few_steps import draw_with_nats, frontier_of_samples, mixture_nats
from diffkit.course.insertion import ExactInsertion, texts_of
from diffkit.course.network_calls import CallCounter
from diffkit.course.parallel_cost import evenly
from diffkit.evaluation.statistics import wilson
from diffkit.io import write_json
from diffkit.model import fingerprint
from diffkit.processes.insertion import EditFlow, FlexMDM
from diffkit.processes.sedd import SEDD
from diffkit.sampling.logits import filtered

RESULTS = Path(__file__).parent / "results" / "perfect_knowledge.json"
DRAWS, STORIES, SEED = 500, 96, 16
CALLS, STEPS, TEMPERATURES = (1, 2, 4, 8, 16), (8, 16, 24), (0.6, 0.8, 1.0, 1.2)


def seeded() -> Generator:
    return Generator().manual_seed(SEED)


def micro_rows(done: Collection[tuple[str, float]]) -> Iterator[dict[str, Any]]:
    """Rows (method, calls, share in the language with its 95 % interval, total variation to it)."""
    micro = load_language("micro")
    V, mask, shape = micro.vocab_size, micro.mask_id, (DRAWS, micro.length)
    texts = texts_of(micro)
    log_p = micro.log_prob(texts)
    masked = MaskedDiffusion(V, mask)
    noisy = {
        "uniform (D3PM)": D3PM(V, mask, "uniform"), "uniform (UDLM)": UDLM(V, mask),
        "uniform (SEDD), Euler": SEDD(V, mask, "uniform", sampler="euler"),
        "uniform (SEDD), Tweedie": SEDD(V, mask, "uniform", sampler="tweedie"),
        "hybrid noise, 0.1": HybridDiffusion(V, mask, 0.1),
    }  # fmt: skip
    ways = [("masked, reverse steps", masked, micro.denoiser(masked), {})]
    ways += [("masked, one open question", masked, micro.denoiser(masked), {"order": one_question})]
    ways += [(name, process, micro.denoiser(process), {}) for name, process in noisy.items()]
    for name, process in {"insertion (FlexMDM)": FlexMDM(V, mask), "insertion (Edit Flows)": EditFlow(V, mask)}.items():
        ways.append((name, process, ExactInsertion(process, texts, log_p), {}))

    def row(name: str, calls: float, drawn: Tensor) -> dict[str, Any]:
        same = (drawn[:, None] == texts).all(-1)  # (n, 16)
        share = same.double().mean(0)
        low, high = wilson(int(same.any(1).sum()), DRAWS)
        off = (log_p.exp() - share).clamp(min=0).sum()
        return {"name": name, "calls": calls, "valid": float(share.sum()), "low": low, "high": high, "off": float(off)}

    for name, process, denoise, how in ways:
        for calls in CALLS:
            if (name, calls) in done:
                continue
            yield row(name, calls, sample(process, denoise, shape=shape, steps=calls, rng=seeded(), **how))
    for bound in (0.0, 0.7, 1.5, 3.0):
        counted = CallCounter(micro.denoiser(masked))
        drawn = sample(entropy_bounded(masked, bound), counted, shape=shape, rng=seeded())
        yield row("masked, entropy bound", counted.rows / DRAWS, drawn)
    for parts in (1, 4):  # a law on the texts: nothing is drawn
        q = (-mixture_nats(texts, log_p.exp(), parts, seed=0)).exp()
        off = float((log_p.exp() - q).clamp(min=0).sum())
        yield {"name": f"one step, mixture of {parts}", "calls": 1, "valid": float(q.sum()), "off": off}


def frontier_rows(done: Collection[tuple[str, int, float]]) -> Iterator[dict[str, Any]]:
    """Rows (denoiser, steps, temperature, share valid with its interval, and of the valid: NLL, entropy, KL, nats)."""
    tales = load_language("tales")
    masked = MaskedDiffusion(tales.vocab_size, tales.mask_id)
    for name, denoise in {"exact": tales.denoiser(masked), "tales-mdlm": load_model("tales-mdlm")}.items():
        for steps in STEPS:
            for temperature in TEMPERATURES:
                if (name, steps, temperature) in done:
                    continue
                cooled, shape = filtered(denoise, temperature), (STORIES, tales.length)
                ids, nats = draw_with_nats(masked, cooled, evenly(one_question), shape, steps, seeded())
                log_p = tales.log_prob(ids)
                hits = int((log_p > -torch.inf).sum())
                low, high = wilson(hits, STORIES)
                row = {"denoiser": name, "steps": steps, "temperature": temperature, "valid": hits / STORIES}
                row |= {"low": low, "high": high}
                if hits > 1:
                    at = frontier_of_samples(-nats, log_p)
                    row |= {key: getattr(at, key)._asdict() for key in ("nll", "entropy", "kl")}
                yield row


PARTS = {"micro": micro_rows, "frontier": frontier_rows}
KEYS = {"micro": ("name", "calls"), "frontier": ("denoiser", "steps", "temperature")}


def settings(part: str) -> dict[str, Any]:
    """What the rows of a part rest on."""
    if part == "micro":
        return {"draws": DRAWS, "seed": SEED}
    return {
        "stories": STORIES, "seed": SEED, "order": "one open question a step, then the surest positions",
        "entropy_nats": round(load_language("tales").entropy(), 4),
        "model_sha256": fingerprint("tales-mdlm"),
    }  # fmt: skip


def main() -> None:
    """Make one part and store it."""
    parser = argparse.ArgumentParser(description="What each method can do when it knows everything.")
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the JSON goes (default: results/)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    stored = json.loads(options.out.read_text(encoding="utf-8")) if options.out.exists() else {}
    rows = stored.get(options.part, {}).get("rows", [])
    done = {tuple(row[key] for key in KEYS[options.part]) for row in rows}
    stated = settings(options.part) | {"torch": torch.__version__.split("+")[0]}
    for row in PARTS[options.part](done):  # type: ignore[operator]
        if tuple(row[key] for key in KEYS[options.part]) in done:
            continue
        rows.append({key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()})
        print(*(value for value in rows[-1].values()), sep="\t", flush=True)
        write_json(options.out, stored | {options.part: {"settings": stated, "rows": rows}})


if __name__ == "__main__":
    main()
