"""Holes of unknown length, and laws of length, against sums over all texts of `micro`."""

import pytest
import torch
from scipy.stats import chisquare
from toys import DERIVATIONS, MICRO, PROBS, TEXTS, L, V, generator

from diffkit.course.insertion import ExactInsertion, fill_hole, hole_law, length_law, only_between, whole_canvas
from diffkit.processes.insertion import FlexMDM
from diffkit.sampling.sampler import infill

WORDS = [list(words) for words, *_ in DERIVATIONS]


def ids_of(*words):
    return torch.tensor(MICRO.tokenizer.convert_tokens_to_ids(list(words)), dtype=torch.long)


@pytest.mark.parametrize(("before", "after"), [(["Mia"], ["ran"]), ([], ["hid"]), (["Tom", "hid"], []), ([], [])])
def test_lengths_of_holes_are_sums_over_texts(before, after):
    want = torch.zeros(L - len(before) - len(after)).double()
    for words, p in zip(WORDS, PROBS, strict=True):
        k = len(words) - len(before) - len(after)
        if k >= 0 and words[: len(before)] == before and words[len(words) - len(after) :] == after:
            want[k] += p
    torch.testing.assert_close(hole_law(MICRO, ids_of(*before), ids_of(*after)), want / want.sum())


def test_the_law_of_lengths_is_that_of_an_empty_hole():
    torch.testing.assert_close(length_law(MICRO), hole_law(MICRO, ids_of(), ids_of()))
    with pytest.raises(ValueError, match="no text of the language starts"):
        hole_law(MICRO, ids_of("Mia", "Mia"), ids_of())


@pytest.mark.slow
def test_runs_in_which_only_the_hole_grew_have_its_exact_law():
    """Chi-square over the texts 'Mia ... ran'; p below 1e-7 by chance. Forbidding other gaps gives another law."""
    process, n = FlexMDM(V, MICRO.mask_id), 2500
    exact = ExactInsertion(process, TEXTS, PROBS.log())
    start = whole_canvas(MICRO, ids_of("Mia", "ran")).expand(n, -1)
    filled = fill_hole(process, exact, start, 1, 1, steps=100, rng=generator(1))
    forbidden = infill(process, only_between(process, exact, 1, 1), start, steps=100, rng=generator(2))
    fits = torch.tensor([words[0] == "Mia" and words[-1] == "ran" for words in WORDS])
    pvalues = []
    for ids in (filled.ids[filled.intact], forbidden):
        counts = (ids[:, None] == TEXTS[fits]).all(-1).sum(0).double()
        assert counts.sum() > 0.8 * len(ids)
        pvalues.append(chisquare(counts.numpy(), (PROBS[fits] / PROBS[fits].sum() * counts.sum()).numpy()).pvalue)
    assert pvalues[0] > 1e-7 > pvalues[1]
