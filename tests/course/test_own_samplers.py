"""The samplers of notebook 10 around a reader's function write what the package's write, token for token."""

import pytest
import torch
from toys import MICRO, generator

from diffkit.course.exercises.methods import speed
from diffkit.course.experiments.own_samplers import HittingBy, RemaskingBy, choose_by
from diffkit.processes.masked import MaskedDiffusion
from diffkit.sampling.parallel import ParallelUnmasking, entropy_bounded
from diffkit.sampling.remasking import Remasking, cap
from diffkit.sampling.sampler import denoise_frames
from diffkit.sampling.skipping import FirstHitting, even_times

PROCESS = MaskedDiffusion(MICRO.vocab_size, MICRO.mask_id, schedule="cosine")
TIMES = even_times(PROCESS.T, 12)
PAIRS = {
    "first hitting": (HittingBy(PROCESS, speed.next_hit), FirstHitting(PROCESS)),
    "entropy bound": (ParallelUnmasking(PROCESS, choose_by(speed.within_bound, 0.7)), entropy_bounded(PROCESS, 0.7)),
    "remasking": (RemaskingBy(PROCESS, TIMES, 0.2, speed.remask_move), Remasking(PROCESS, TIMES, cap(0.2))),
}


@pytest.mark.parametrize("mine, package", PAIRS.values(), ids=PAIRS)
def test_a_reader_s_function_makes_the_package_s_sampler(mine, package):
    start = MICRO.sample(40, generator(1))
    start[:, 1:] = MICRO.mask_id
    frames = [
        [*denoise_frames(sampler, MICRO.denoiser(PROCESS), start=start, rng=generator(2))]
        for sampler in (mine, package)
    ]
    assert len(frames[0]) == len(frames[1]) > 3
    assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(*frames, strict=True))
