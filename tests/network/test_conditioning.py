"""Labels: read off a story exactly, hidden at the right rate, told to a network that starts by ignoring them."""

import math

import pytest
import torch
from toys import MASK, MICRO, TALES, L, V, derivations, generator

from diffkit.languages.story_language import endings
from diffkit.model import build_model, start_from
from diffkit.network.conditioning import Conditioned, dropped
from diffkit.processes.base import as_denoiser
from diffkit.processes.masked import MaskedDiffusion


def conditional_model(**settings):
    torch.manual_seed(0)
    process = MaskedDiffusion(V, MASK, "linear")
    shape = {"hidden_size": 16, "num_layers": 1, "num_heads": 2}
    return build_model(process, shape, max_length=L, labels=len(MICRO.labels), **settings).eval()


def test_endings_are_those_of_the_template():
    for words, _, _, label in derivations(MICRO):
        canvas = torch.full((1, L), MICRO.pad_id)
        canvas[0, : len(words) + 1] = torch.tensor([*MICRO.tokenizer.convert_tokens_to_ids(words), MICRO.eos_id])
        assert MICRO.labels[endings(MICRO, canvas)] == label


def test_a_text_outside_the_language_has_no_ending():
    assert endings(TALES, torch.full((2, TALES.length), TALES.pad_id)).tolist() == [-1, -1]


def test_labels_are_hidden_at_the_rate_asked_for():
    """100,000 labels at rate 0.15: standard deviation 0.0011, so six of them miss by chance once in 5e8."""
    hidden = (dropped(torch.zeros(100_000, dtype=torch.long), 0.15, 7, generator()) == 7).double().mean()
    assert abs(hidden - 0.15) < 6 * math.sqrt(0.15 * 0.85 / 100_000)
    assert (dropped(torch.arange(4), 0.0, 4, generator()) == torch.arange(4)).all()
    assert (dropped(torch.arange(4), 1.0, 4, generator()) == 4).all()


def test_a_fresh_model_ignores_its_label_and_a_trained_one_need_not():
    model, xt = conditional_model(), torch.full((3, L), MASK)
    without = model(xt, 1000.0)
    assert torch.equal(Conditioned(model, 1)(xt, torch.tensor(1000.0)), without)
    torch.nn.init.normal_(model.denoiser.label_embedding.weight, generator=generator())
    told = Conditioned(model, torch.tensor([0, 1, model.labels]))(xt, torch.tensor(1000.0))
    assert not torch.allclose(told[0], told[1]) and not torch.allclose(told[0], told[2])
    assert torch.equal(told[2], model(xt, 1000.0)[2]), "the last label means any, as does none"


def test_a_conditioned_model_answers_at_chosen_positions_alike():
    model, xt = conditional_model(), torch.full((2, L), MASK)
    torch.nn.init.normal_(model.denoiser.label_embedding.weight, generator=generator())
    where = torch.zeros(2, L, dtype=torch.bool)
    where[0, 1] = where[1, 3] = True
    told = Conditioned(model, 1)
    assert as_denoiser(told) is told
    assert torch.allclose(told(xt, torch.tensor(0.0), where), told(xt, torch.tensor(0.0))[where], atol=1e-6)


@pytest.mark.parametrize("label", [torch.tensor([0, 9]), torch.tensor([0]), torch.tensor([-1, 0])])
def test_a_label_that_does_not_exist_is_refused(label):
    with pytest.raises(ValueError, match="label must be"):
        conditional_model().eval()(torch.full((2, L), MASK), 0.0, label=label)


def test_a_model_without_labels_says_so():
    plain = build_model(MaskedDiffusion(V, MASK), {"hidden_size": 16, "num_layers": 1, "num_heads": 2}, max_length=L)
    assert plain.labels == 0
    with pytest.raises(ValueError, match="label must be"):
        plain.eval()(torch.full((1, L), MASK), 0.0, label=torch.tensor([0]))


def test_a_conditional_model_starts_from_one_without_labels(tmp_path):
    torch.manual_seed(1)
    shape = {"hidden_size": 16, "num_layers": 1, "num_heads": 2}
    plain = build_model(MaskedDiffusion(V, MASK, "linear"), shape, max_length=L).eval()
    plain.save_pretrained(tmp_path)
    model = conditional_model()
    start_from(model, tmp_path)
    xt = torch.full((1, L), MASK)
    assert torch.equal(model(xt, 0.0, label=torch.tensor([1])), plain(xt, 0.0))
