"""Sagas against enumeration: `micro-sagas` in full on canvases of several lengths, `sagas` by properties and counts."""

import itertools
import math

import pytest
import torch
from scipy import stats
from toys import generator

from diffkit import D3PM, SEDD, UDLM, BlockDiffusion, MaskedDiffusion, load_language, nelbo, sample
from diffkit.evaluation.samples import marginals, quality
from diffkit.languages.saga_language import SagaLanguage
from diffkit.languages.sagas import MICRO_SAGAS, SAGAS, Chapter
from diffkit.sampling.guidance import exact_classifier

LANGUAGE = load_language("sagas")
MICRO = load_language("micro-sagas")


def derivations(grammar, room):
    """Every saga of at most `room` words, by hand: (words, probability, number of chapters, closing chapter)."""

    def shown(text, chosen):
        for word in text.split():
            name, _, form = word.strip("{}").partition(".")
            yield chosen[name][form] if word.startswith("{") else word

    def choices(slots):
        each = [list(zip(slot.values, slot.probs, strict=True)) for slot in slots.values()]
        for values in itertools.product(*each):
            named = dict(zip(slots, (value for value, _ in values), strict=True))
            yield named, math.prod(p for _, p in values)

    def go_on(name, shared, words, prob, count):
        chapter = grammar.chapters[name]
        used = {slot: grammar.slots[slot] for slot in grammar.slots if "{" + slot in chapter.text}
        for own, p in choices(used):
            text = words + (*shown(chapter.text, shared | own),)
            if len(text) <= room and not chapter.next:
                yield text, prob * p, count, name
            elif len(text) < room:
                for after, q in chapter.next.items():
                    yield from go_on(after, shared, text, prob * p * q, count + 1)

    for shared, p in choices(grammar.shared):
        for first, q in grammar.first.items():
            yield from go_on(first, shared, (), p * q, 1)


class Table:
    """A language of sagas as a table of all texts."""

    def __init__(self, grammar, L):
        self.language = SagaLanguage(grammar, L)
        found = list(derivations(grammar, L - 1))
        vocab = self.language.tokenizer.get_vocab()
        rows = [[*(vocab[word] for word in words), vocab["[EOS]"]] for words, *_ in found]
        self.texts = torch.tensor([row + [vocab["[PAD]"]] * (L - len(row)) for row in rows])
        probs = torch.tensor([prob for _, prob, *_ in found], dtype=torch.float64)
        self.probs, self.total = probs / probs.sum(), probs.sum().item()
        self.plots = [(count, end) for *_, count, end in found]
        self.labels = [grammar.chapters[end].label for _, end in self.plots]
        self.words = torch.tensor([len(words) for words, *_ in found])

    def given(self, label):
        """Probabilities of the texts that end so."""
        kept = self.probs * torch.tensor([label in (None, one) for one in self.labels])
        return kept / kept.sum()

    def posterior(self, evidence, label=None):
        """Bayes over all texts, written out."""
        joint = evidence[:, torch.arange(self.texts.shape[1]), self.texts].sum(-1) + self.given(label).log()
        log_p = joint.logsumexp(1)
        weight = (joint - log_p[:, None]).exp().nan_to_num(0.0)
        shown = torch.nn.functional.one_hot(self.texts, self.language.vocab_size).double()
        return log_p, torch.einsum("bn,nlv->blv", weight, shown)


TABLES = {L: Table(MICRO_SAGAS, L) for L in (4, 7, 10, 12)}
BRANCHING = MICRO_SAGAS._replace(  # a closing chapter that says little, two first ones, chapters of one length
    first={"one": 0.5, "other": 0.5},
    chapters=MICRO_SAGAS.chapters
    | {
        "other": Chapter("so {home} {Mia} {ran}", {"two": 0.5, "end": 0.5}),
        "two": Chapter("and {ran}", {"two": 0.3, "three": 0.3, "more": 0.2, "end": 0.2}),
        "more": Chapter("{Mia.Tom} {home}", {"two": 0.7, "sad": 0.3}),
    },
)
TABLES["branching"] = Table(BRANCHING, 11)
ALL = pytest.mark.parametrize("table", TABLES.values(), ids=map(str, TABLES))


def test_the_canvas_that_is_loaded_is_one_of_these():
    assert TABLES[10].language.length == MICRO.length and len(TABLES[10].texts) == 100
    assert [len(table.texts) for table in TABLES.values()] == sorted({len(table.texts) for table in TABLES.values()})


# -------------------------------------------------------------------------------------------------------- probability


@ALL
def test_each_text_has_one_derivation_and_its_probability(table):
    assert len({tuple(row) for row in table.texts.tolist()}) == len(table.texts)
    torch.testing.assert_close(table.language.log_prob(table.texts), table.probs.log(), atol=1e-9, rtol=0)


@ALL
def test_entropy_length_law_and_plots_are_the_enumerated_ones(table):
    language = table.language
    assert language.share_that_fits == pytest.approx(table.total, abs=1e-9)
    assert language.entropy() == pytest.approx(-(table.probs * table.probs.log()).sum().item(), abs=1e-9)
    law = torch.zeros(language.length, dtype=torch.float64).index_add_(0, table.words, table.probs)
    torch.testing.assert_close(language.length_law(), law, atol=1e-9, rtol=0)
    number = torch.tensor([language.plots.index(plot) for plot in table.plots])
    assert torch.equal(language.parse(table.texts), number)
    plots = torch.zeros(len(language.plots), dtype=torch.float64).index_add_(0, number, table.probs)
    torch.testing.assert_close(language.template_probs, plots, atol=1e-9, rtol=0)
    assert [language.labels[language.template_labels[i]] for i in number] == table.labels


def test_log_prob_of_every_canvas_that_can_be_written():
    """Every canvas of four tokens without MASK: the enumerated value, or -inf; in total exactly 1."""
    table = TABLES[4]
    tokens = torch.tensor([i for i in range(table.language.vocab_size) if i != table.language.mask_id])
    canvases = torch.cartesian_prod(*[tokens] * 4)
    known = dict(zip(map(tuple, table.texts.tolist()), table.probs.log().tolist(), strict=True))
    want = torch.tensor([known.get(tuple(row), -math.inf) for row in canvases.tolist()], dtype=torch.float64)
    log_p = table.language.log_prob(canvases)
    torch.testing.assert_close(log_p, want, atol=1e-9, rtol=0)
    assert torch.equal(table.language.parse(canvases) >= 0, want > -torch.inf)


def test_empty_batches_have_empty_answers():
    none = TABLES[10].texts[:0]
    assert MICRO.log_prob(none).shape == MICRO.parse(none).shape == (0,)
    assert MICRO.posterior(MICRO.seen(none))[1].shape == (0, 10, MICRO.vocab_size) and MICRO.decode(none) == []


def test_a_grammar_that_hides_something_has_no_entropy():
    def changed(**chapters):
        return SagaLanguage(MICRO_SAGAS._replace(chapters=MICRO_SAGAS.chapters | chapters))

    with pytest.raises(ValueError, match="'three' and 'end', after one, can begin alike"):
        changed(end=Chapter("ran Tom ran but", label="end")).entropy()
    assert changed(end=Chapter("ran Tom hid .", label="end")).entropy() > 0  # "three" shows one word twice
    with pytest.raises(ValueError, match="'one' must tell what 'home' is"):
        changed(one=Chapter("{Mia} {ran}", MICRO_SAGAS.chapters["one"].next)).entropy()


# ---------------------------------------------------------------------------------------------------------- posterior


@ALL
def test_posterior_of_any_evidence_is_bayes_over_all_texts(table):
    """Any table of log-likelihoods, also very sharp ones, and ones that no text fits; for each label."""
    rng, shape = generator(6), (60, table.language.length, table.language.vocab_size)
    scale = torch.tensor([0, 1, 30, 1000.0]).repeat(15)[:, None, None]
    forbidden = torch.tensor([0, 0, 0, 0.1, 0.3]).repeat(12)[:, None, None]
    evidence = scale * torch.randn(shape, dtype=torch.float64, generator=rng)
    evidence[torch.rand(shape, generator=rng) < forbidden] = -torch.inf
    for label in (None, *table.language.labels):
        log_p, probs = table.language.posterior(evidence, label)
        want_log_p, want_probs = table.posterior(evidence, label)
        assert (log_p == -torch.inf).any() and (log_p > -torch.inf).sum() > 30
        torch.testing.assert_close(log_p, want_log_p, atol=1e-9, rtol=1e-12)
        torch.testing.assert_close(probs, want_probs, atol=1e-9, rtol=0)


@pytest.mark.parametrize("length", [128, 256, 512])
def test_masks_are_summed_over_on_a_canvas_of_any_length(length):
    """Nothing seen: log p is 0, the predicted lengths are the law; all but the ends seen: the rest must agree."""
    language = LANGUAGE if length == 256 else SagaLanguage(SAGAS, length)
    hidden = torch.full((1, length), language.mask_id)
    log_p, probs = language.posterior(language.seen(hidden))
    assert log_p.item() == pytest.approx(0, abs=1e-9)
    torch.testing.assert_close(probs[0, :, language.eos_id], language.length_law(), atol=1e-9, rtol=0)
    torch.testing.assert_close(probs.sum(-1), torch.ones(1, length, dtype=torch.float64), atol=1e-9, rtol=0)
    x0 = language.sample(4, generator())
    assert language.tokenizer.unk_token_id not in x0 and (language.log_prob(x0) > -torch.inf).all()


def test_ties_span_the_whole_saga():
    """The hero, the friend, the home and the thing are known at the end if they are seen at the start."""
    x0 = LANGUAGE.sample(8, generator(1))
    words = torch.tensor([LANGUAGE.tokenizer.get_vocab()[word] for word in "fox goat dog cat mill farm".split()])
    hidden = torch.where(torch.arange(256) < 30, x0, LANGUAGE.mask_id)
    hidden[:, 30:] = torch.where(torch.isin(x0[:, 30:], words), hidden[:, 30:], x0[:, 30:])
    probs = LANGUAGE.posterior(LANGUAGE.seen(hidden))[1]
    assert torch.isin(x0[:, 60:], words).sum() > 8
    torch.testing.assert_close(probs.gather(-1, x0[..., None]), torch.ones(8, 256, 1, dtype=torch.float64))


# ----------------------------------------------------------------------------------------------------------- sampling


@ALL
def test_samples_follow_the_table(table):
    """Chi-square over the likelier texts and the rest together; fails by chance once in a million seeds."""
    for label in {None, *table.labels}:
        drawn = table.language.sample(5000, generator(3), label)
        number = {tuple(row): i for i, row in enumerate(table.texts.tolist())}
        counts = torch.bincount(torch.tensor([number[tuple(row)] for row in drawn.tolist()]), minlength=len(number))
        expected = 5000 * table.given(label)
        assert counts[expected == 0].sum() == 0
        often = expected > 8
        found, due = (torch.cat([x[often], x[~often].sum()[None]]).double() for x in (counts, expected))
        found, due = (x if due[-1] > 8 else torch.cat([x[:-2], x[-2:].sum()[None]]) for x in (found, due))
        assert stats.chisquare(found, due).pvalue > 1e-6


def test_lengths_and_plots_of_sagas():
    """Chi-square of 2,000 sagas against the exact law; fails by chance once in a million seeds."""
    x0 = LANGUAGE.sample(2000, generator(4))
    lengths = (x0 != LANGUAGE.pad_id).sum(1) - 1
    plots = LANGUAGE.parse(x0[:150])
    for found, law in ((lengths, LANGUAGE.length_law()), (plots, LANGUAGE.template_probs)):
        counts, expected = torch.bincount(found, minlength=len(law)).double(), len(found) * law
        assert counts[expected == 0].sum() == 0
        often = expected > 8
        pooled = (torch.cat([x[often], x[~often].sum()[None]]) for x in (counts, expected))
        assert stats.chisquare(*pooled).pvalue > 1e-6
    assert {n for n, _ in LANGUAGE.plots} == set(range(3, 13))


def test_same_seed_same_sagas_and_the_entropy_is_their_mean_surprise():
    first, again, other = (LANGUAGE.sample(150, generator(seed)) for seed in (5, 5, 6))
    assert torch.equal(first, again) and not torch.equal(first, other)
    nats = -LANGUAGE.log_prob(first)
    assert abs(nats.mean().item() - LANGUAGE.entropy()) < 5 * nats.std().item() / math.sqrt(150)
    ids = [LANGUAGE.tokenizer(text)["input_ids"] for text in LANGUAGE.decode(first[:20])]
    assert all(row[: len(one)].tolist() == one for row, one in zip(first, ids, strict=False))
    assert LANGUAGE.sample(0, generator()).shape == (0, 256)


# ----------------------------------------------------------------------------------------------------------- denoiser


@pytest.mark.parametrize("kind", [MaskedDiffusion, D3PM, UDLM, SEDD, BlockDiffusion])
def test_the_exact_denoiser_reaches_the_entropy(kind):
    """The bound of true sagas is their -log p, for every process; within 5 standard errors, a fixed seed."""
    own = {"block": 4} if kind is BlockDiffusion else {}
    process = kind(MICRO.vocab_size, MICRO.mask_id, **own)
    x0 = MICRO.sample(200, generator(7))
    bound = nelbo(process, MICRO.denoiser(process), x0, rng=generator(8), draws=2)
    assert abs(bound.mean + MICRO.log_prob(x0).mean().item()) < max(5 * bound.standard_error, 1e-6), bound


def test_one_token_a_step_writes_sagas_only():
    process = MaskedDiffusion(MICRO.vocab_size, MICRO.mask_id)
    ids = sample(
        process,
        MICRO.denoiser(process),
        shape=(200, MICRO.length),
        steps=MICRO.length,
        rng=generator(9),
        order="random",
    )
    found = quality(MICRO, ids)
    assert found.valid == 1 and found.plot_kl < 3 * found.plot_kl_floor
    assert set(marginals(MICRO, ids)) == {"plot", "ending", "length"}


def test_the_exact_classifier_is_bayes():
    process, table = MaskedDiffusion(MICRO.vocab_size, MICRO.mask_id), TABLES[10]
    x0 = MICRO.sample(20, generator(1))
    zt = torch.where(torch.rand(x0.shape, generator=generator(2)) < 0.6, MICRO.mask_id, x0)
    log_p = exact_classifier(MICRO, process, "sad")(zt, torch.full((20,), 600.0))
    joint = table.probs * torch.tensor([label == "sad" for label in table.labels])
    fits = ((zt[:, None] == table.texts) | (zt == MICRO.mask_id)[:, None]).all(-1).double()  # (B, texts)
    shown = torch.nn.functional.one_hot(table.texts, MICRO.vocab_size).double()
    both, alone = (torch.einsum("bn,n,nlv->blv", fits, p, shown) for p in (joint, table.probs))
    torch.testing.assert_close(log_p.exp()[alone > 0], (both / alone)[alone > 0], atol=1e-9, rtol=0)


def test_wrong_use_is_named():
    with pytest.raises(ValueError, match="no saga fits a canvas of 3 tokens"):
        SagaLanguage(MICRO_SAGAS, 3)
    with pytest.raises(ValueError, match="label must be one of"):
        MICRO.sample(1, generator(), "happy")
    with pytest.raises(ValueError, match=r"SagaLanguage: ids must be \(n, 10\)"):
        MICRO.log_prob(TABLES[7].texts)
    with pytest.raises(ValueError, match="log_evidence must be"):
        MICRO.posterior(torch.zeros(1, 3, 4))
