"""Models of diffkit in the Language Model Evaluation Harness, as its model "diffkit"; pip install 'diffkit[eval]'.

`python -m diffkit.evaluation.harness` is the command line of lm-eval with that model in it; see docs/models.md.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, cast

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model
from torch import Generator, Tensor
from tqdm.auto import tqdm

from diffkit.checks import check_whole
from diffkit.data.files import BAR_DELAY
from diffkit.data.tokenizer import text_ids
from diffkit.evaluation.chain import in_batches
from diffkit.hub import fetch
from diffkit.model import load_with_tokenizer, model_folder
from diffkit.processes.base import Denoise, Process, on_device_of
from diffkit.random import uniform_numbers
from diffkit.sampling.sampler import denoise_frames, last_frame

JUDGED = ("autoregressive", "block", "mdlm")  # a MASK that is never revealed counts as unknown: it is summed over


@torch.no_grad()
def conditional_nats(
    process: Process, denoise: Denoise, canvas: Tensor, counted: Tensor, *, rng: Generator, draws: int,
    batch_size: int = 64,
) -> float:  # fmt: skip
    """Bound on -log p(counted tokens | tokens before them), nats; exact for an autoregressive process.

    Tokens that are not counted are given, and stay MASK where they are MASK: what follows a text is unknown. With a
    perfect denoiser every order of revealing has the same product of conditionals, so the bound is the truth.

    Args:   canvas: (L,) ids, a text and then MASK; counted: (L,) bool; draws: stratified numbers of masked tokens;
            batch_size: of them that the network reads at a time.
    Source: arXiv:2406.03736 and arXiv:2502.09992, the estimator with an exact number of masks.
    """
    draws = draws if process.bound_varies else 1
    u = (torch.arange(draws) + uniform_numbers((draws,), rng)) / draws
    rows, frozen = (on_device_of(denoise, x.expand(draws, -1)) for x in (canvas, ~counted))
    return process.bound(in_batches(denoise, batch_size), rows, u, rng, frozen)[:, counted].sum(1).mean().item()


def watched(requests: list[Instance]) -> Iterable[Instance]:
    """The same, with a progress bar where it takes long."""
    return cast(Iterable[Instance], tqdm(requests, unit="request", delay=BAR_DELAY))


@register_model("diffkit")
class HarnessModel(LM):
    """A trained model as lm-eval calls it. Log-likelihoods are lower bounds, exact for autoregressive models.

    Each request has its own random numbers, from the seed and its context: the choices of one question see the same
    draws, and no result depends on batches, or on what else was asked.

    Args:   pretrained: a folder, the name of a shipped model, or of one on the Hub, with revision;
            draws: maskings for each bound; seed: of all random numbers; batch_size: texts read at a time; auto: 64.
            For generated text, steps (default: one for each token) and order, as in `denoise_frames`.
    Raises: ValueError for a process whose noise does not mask; as `load_model` and `fetch`.
    """

    def __init__(
        self, pretrained: str = "tales-mdlm", *, revision: str | None = None, draws: int = 32, seed: int = 0,
        steps: int | None = None, order: str | None = None, batch_size: int | str = 64, device: str | None = None,
        max_batch_size: int | None = None,
    ):  # fmt: skip
        super().__init__()
        check_whole(draws, "draws", "HarnessModel")
        folder = model_folder(pretrained)
        folder = folder if folder.is_dir() else fetch(pretrained, revision)
        model, self.tokenizer = load_with_tokenizer(folder)
        if model.process.name not in JUDGED:
            raise ValueError(
                f"HarnessModel: the processes are {JUDGED}, got {model.process.name!r}. Choose another model."
            )
        self.process, self.length = model.process, model.denoiser.config.max_length
        here = device and (torch.cuda.is_available() or not device.startswith("cuda"))  # lm-eval asks for cuda:0
        self.denoise: Denoise = model.to(device if here else "cpu")
        self.seed, self.steps = seed, steps
        self.how = {"draws": draws, "batch_size": 64 if str(batch_size).startswith("auto") else int(batch_size)}
        self.ends = {self.tokenizer.eos_token_id, self.tokenizer.pad_token_id}
        self.order = order or model.process.default_order

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """The bound on log p(continuation | context), nats, and whether one would write it without drawing."""
        return [self._judged(*cast(tuple[str, str], request.args)) for request in watched(requests)]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """The bound on log p of each whole text, nats, EOS not counted; a long one in windows of the model's length.

        The last window is a whole one too: the tokens of the window before that it repeats are given.
        """
        found = []
        for (text,) in (request.args for request in watched(requests)):
            ids, L = text_ids(text, self.tokenizer), self.length
            starts = [*range(0, max(len(ids) - L, 0), L), max(len(ids) - L, 0)]
            done = [0, *(start + L for start in starts[:-1])]
            windows = zip(starts, done, strict=True)
            found.append(-sum(self._nats(ids[at : at + L], known - at, self._generator(text)) for at, known in windows))
        return found

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """What follows each context: the canvas is filled, and then cut at EOS and at the first stop string."""
        return [self._continued(*cast(tuple[str, dict[str, Any]], request.args)) for request in watched(requests)]

    # ------------------------------------------------------------------------------------------------------ one request

    def _generator(self, text: str) -> Generator:
        return Generator().manual_seed(zlib.crc32(f"{self.seed} {text}".encode()))  # of a seed, torch takes 32 bits

    def _canvas(self, ids: Sequence[int]) -> Tensor:
        """(L,) ids, MASK after the text."""
        return torch.tensor([*ids, *[self.process.mask_id] * (self.length - len(ids))])

    def _nats(self, ids: Sequence[int], given: int, rng: Generator) -> float:
        """Bound on -log p of the tokens after the first `given` ones."""
        place = torch.arange(self.length)
        counted = (place >= given) & (place < len(ids))
        return conditional_nats(self.process, self.denoise, self._canvas(ids), counted, rng=rng, **self.how)

    def _judged(self, context: str, continuation: str) -> tuple[float, bool]:
        words = context.rstrip()  # the space before a word belongs to its token
        given, ids = len(text_ids(words, self.tokenizer)), text_ids(context + continuation, self.tokenizer)
        if len(ids) - given > self.length:
            raise ValueError(
                f"HarnessModel: a continuation has {len(ids) - given} tokens, the model's canvas {self.length}. Choose "
                "a task with shorter answers, or one of whole texts (loglikelihood_rolling)."
            )
        if given == len(ids):
            return 0.0, True
        given, ids = max(given - max(len(ids) - self.length, 0), 0), ids[-self.length :]  # the context loses its start
        return -self._nats(ids, given, self._generator(context)), self._is_greedy(ids, given, self._generator(context))

    def _is_greedy(self, ids: list[int], given: int, rng: Generator) -> bool:
        """Whether the likeliest tokens, one after the other, are these."""
        text, start = torch.tensor(ids), self._canvas(ids[:given])[None]
        frames = denoise_frames(
            self.process, self.denoise, start=start, steps=self.length - given, temperature=0.0, rng=rng,
            order="left_to_right" if self.process.any_order else "ancestral",
        )  # fmt: skip
        written = (frame.tokens[0, : len(ids)].cpu() for frame in islice(frames, 1 + len(ids) - given))
        agrees = (((row == text) | (row == self.process.mask_id)).all() for row in written)
        return all(agrees)

    def _continued(self, context: str, how: dict[str, Any]) -> str:
        L, most = self.length, int(how.get("max_gen_toks", self.length))
        given = text_ids(context, self.tokenizer)[min(most, L // 2) - L :]  # half the canvas is left, or what is asked
        temperature = float(how.get("temperature", 1.0)) if how.get("do_sample") else 0.0
        steps, rng = min(self.steps or L, L - len(given)), self._generator(context)
        frames = denoise_frames(
            self.process, self.denoise, start=self._canvas(given)[None], steps=steps, order=self.order, rng=rng,
            temperature=temperature,
        )  # fmt: skip
        is_enough = not self.process.bound_varies and not self.steps  # from left to right, one token a step
        made = last_frame(islice(frames, 1 + most if is_enough else None)).tokens[0, len(given) :].tolist()
        ends = (i for i, token in enumerate(made) if token in self.ends)
        text = self.tokenizer.decode(made[: min(next(ends, L), most)])
        stops = how.get("until") or []
        for stop in filter(None, [stops] if isinstance(stops, str) else stops):
            text = text.partition(stop)[0]
        return text


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
