"""The exact language against enumeration: `micro` in full, `tales` by a proof over its templates and by counting."""

import math

import pytest
import torch
import toys
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from toys import LABELS, MASK, MICRO, PROBS, SUBSETS, TALES, TEXTS, L, V, beliefs, generator, masked_diffusion

from diffkit.languages.story_language import StoryLanguage, endings, load_language
from diffkit.languages.tales import MICRO as MICRO_GRAMMAR
from diffkit.languages.tales import Template

TEXT_PROBS = dict(zip(map(tuple, TEXTS.tolist()), PROBS.tolist(), strict=True))


# ------------------------------------------------------------------------------------------------------ one derivation


def test_micro_has_one_derivation_for_each_of_its_sixteen_texts():
    assert len(toys.DERIVATIONS) == len(TEXT_PROBS) == 16
    assert math.isclose(sum(TEXT_PROBS.values()), 1, abs_tol=1e-12)


def test_two_templates_of_tales_never_give_the_same_text():
    """For each pair of templates some position has no word in common, so the text tells its template.

    Within a template the text shows the form of every slot it counts, so the text tells these, too.
    """
    possible = torch.stack([words_possible(template.text) for template in TALES.grammar.templates])  # (K, L, V)
    share_a_word = torch.stack([(column @ column.T) > 0 for column in possible.float().unbind(1)], -1)  # (K, K, L)
    could_be_equal = share_a_word.all(-1)
    assert len(possible) == 132
    assert torch.equal(could_be_equal, torch.eye(len(possible), dtype=torch.bool))


def words_possible(text):
    """Which words can stand at each position of a template, (L, V) bool; read from the grammar, not from its tables."""
    vocab, table = TALES.tokenizer.get_vocab(), torch.zeros(TALES.length, TALES.vocab_size, dtype=torch.bool)
    words = [*text.split(), "[EOS]"]
    for i, word in enumerate(words + ["[PAD]"] * (TALES.length - len(words))):
        slot, _, form = word.strip("{}").partition(".")
        shown = [value[form] for value in TALES.grammar.slots[slot].values] if word.startswith("{") else [word]
        table[i, [vocab[one] for one in shown]] = True
    return table


def test_every_word_of_tales_is_in_the_vocabulary_and_every_probability_adds_up():
    for name, slot in TALES.grammar.slots.items():
        assert math.isclose(sum(slot.probs), 1, abs_tol=1e-12), name
    assert math.isclose(sum(template.prob for template in TALES.grammar.templates), 1, abs_tol=1e-12)
    assert TALES.tokenizer.unk_token_id not in TALES.sample(2000, generator())


# -------------------------------------------------------------------------------------------------------- probability


def test_log_prob_of_every_canvas_that_can_be_written():
    """All 7^5 canvases without MASK: the enumerated value for the 16 texts, -inf for the rest; in total exactly 1."""
    tokens = torch.tensor([i for i in range(V) if i != MASK])
    canvases = torch.cartesian_prod(*[tokens] * L)
    want = torch.tensor([TEXT_PROBS.get(tuple(row), 0.0) for row in canvases.tolist()], dtype=torch.float64)
    log_p = MICRO.log_prob(canvases)
    torch.testing.assert_close(log_p, want.log(), atol=1e-12, rtol=0)
    assert math.isclose(log_p.exp().sum(), 1, abs_tol=1e-12)


def test_masks_are_summed_over():
    """Every text under every pattern of masks: the probability of what is visible is the sum of what fits."""
    canvases = torch.where(SUBSETS, MASK, TEXTS[:, None]).flatten(0, 1)
    fits = ((canvases[:, None] == TEXTS) | (canvases == MASK)[:, None]).all(-1)
    torch.testing.assert_close(MICRO.log_prob(canvases).exp(), fits.double() @ PROBS, atol=1e-12, rtol=0)


def test_log_prob_of_tales_is_the_product_of_its_choices():
    """One story by hand: its template, then 1 / (number of choices) for each slot that shows."""
    text = "Mia ran to the park on a sunny day. She found an old hat under a bench. But Mia lost it again at the park."
    ids = torch.tensor([text_canvas(text)])
    # Slots that show: hero (56 pairs, 7 with Mia and any friend), walked, park, weather, time, red, kite, bench.
    slots = 7 / 56 / 6 / 8 / 6 / 4 / 8 / 12 / 8
    template = 0.92 * 0.4 * 0.6 * 0.15 / 3 * 0.5
    assert TALES.log_prob(ids).item() == pytest.approx(math.log(template * slots), abs=1e-12)
    assert TALES.decode(ids) == [text]


def text_canvas(text):
    ids = [*TALES.tokenizer(text, add_special_tokens=False)["input_ids"], TALES.eos_id]
    return ids + [TALES.pad_id] * (TALES.length - len(ids))


def test_entropy_of_micro_is_the_enumerated_one():
    assert MICRO.entropy() == pytest.approx(toys.ENTROPY, abs=1e-12)


def words_template(text, prob=0.2):
    return Template(text, prob, "short")


@pytest.mark.parametrize(
    ("text", "ambiguous"),
    [
        ("Mia {ran}", True),  # {Mia} {ran} says it, too
        ("Mia ran Tom ran", True),  # {Mia} {ran} {Mia.Tom} {ran}
        ("Mia ran Mia ran", False),  # each word can stand where it stands in a story, but no story holds them all
        ("{Mia} {ran} {Mia} {ran}", False),
    ],
)
def test_the_entropy_of_texts_with_two_derivations_is_refused(text, ambiguous):
    grammar = MICRO_GRAMMAR._replace(templates=[*MICRO_GRAMMAR.templates, words_template(text)])
    language = StoryLanguage(grammar)
    if ambiguous:
        with pytest.raises(ValueError, match=r"entropy: templates \d and 4 can write the same text"):
            language.entropy()
        unlikely = grammar._replace(templates=[*MICRO_GRAMMAR.templates, words_template(text, 0.0)])
        assert StoryLanguage(unlikely).entropy() == pytest.approx(toys.ENTROPY)
    else:
        texts = language.sample(2000, generator()).unique(dim=0)
        probs = language.log_prob(texts).exp()
        assert probs.sum().item() == pytest.approx(1) and language.entropy() == pytest.approx(
            -(probs * probs.log()).sum()
        )


def test_empty_batches_have_empty_answers():
    none = TEXTS[:0]
    assert MICRO.log_prob(none).shape == MICRO.parse(none).shape == endings(MICRO, none).shape == (0,)
    assert MICRO.decode(none) == [] and MICRO.posterior(MICRO.seen(none))[1].shape == (0, L, V)
    assert MICRO.denoiser(masked_diffusion())(none, torch.ones(0)).shape == (0, L, V)


@pytest.mark.slow
def test_entropy_of_tales_is_the_mean_surprise_of_20_000_stories():
    """Within 4 standard errors: of all seeds, 6 in 100,000 would fail; this one is fixed."""
    nats = -TALES.log_prob(TALES.sample(20_000, generator(0)))
    assert abs(nats.mean().item() - TALES.entropy()) < 4 * nats.std().item() / math.sqrt(20_000)


@given(st.lists(st.lists(st.sampled_from([i for i in range(V) if i != MASK]), min_size=L, max_size=L), max_size=4))
def test_garbage_gets_minus_infinity(rows):
    """Any ids at all: the enumerated answer, never an exception; parse agrees on what is a story."""
    ids = torch.tensor(rows, dtype=torch.int64).reshape(-1, L)
    want = [math.log(TEXT_PROBS[tuple(row)]) if tuple(row) in TEXT_PROBS else -math.inf for row in rows]
    assert MICRO.log_prob(ids).tolist() == pytest.approx(want, abs=1e-12)
    assert (MICRO.parse(ids) >= 0).tolist() == [tuple(row) in TEXT_PROBS for row in rows]


def test_garbage_in_tales():
    ids = torch.randint(0, TALES.vocab_size, (50, TALES.length), generator=generator())
    ids[ids == TALES.mask_id] = TALES.pad_id
    one_word_off = TALES.sample(50, generator(1))
    one_word_off[:, 2] = TALES.eos_id
    for broken in (ids, one_word_off):
        assert (TALES.log_prob(broken) == -torch.inf).all() and (TALES.parse(broken) == -1).all()


# ----------------------------------------------------------------------------------------------------------- sampling


def test_samples_of_micro_follow_its_table():
    """Chi-square over the 16 texts, 20,000 draws; fails by chance once in a million seeds."""
    counts = toys.micro_counts(MICRO.sample(20_000, generator(0)))
    assert counts[16] == 0
    assert stats.chisquare(counts[:16], 20_000 * PROBS).pvalue > 1e-6


def test_same_seed_same_stories():
    first, again, other = (TALES.sample(20, generator(seed)) for seed in (5, 5, 6))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.shape == (20, TALES.length) and first.dtype == torch.int64
    assert TALES.sample(0, generator()).shape == (0, TALES.length)


@pytest.mark.parametrize("language", [MICRO, TALES], ids=["micro", "tales"])
def test_labels_choose_the_ending(language):
    ending = dict(enumerate(template.label for template in language.grammar.templates))
    assert set(language.labels) == set(ending.values())
    for label in language.labels:
        plots = language.parse(language.sample(300, generator(), label))
        assert {ending[int(k)] for k in plots} == {label}


def test_a_label_is_a_condition_like_any_other():
    """Samples of a label follow the table restricted to it; chi-square, fails by chance once in a million seeds."""
    kept = torch.tensor([label == "long" for label in LABELS])
    counts = toys.micro_counts(MICRO.sample(10_000, generator(2), "long"))[:16]
    assert counts[~kept].sum() == 0
    assert stats.chisquare(counts[kept], 10_000 * PROBS[kept] / PROBS[kept].sum()).pvalue > 1e-6


# ---------------------------------------------------------------------------------------------------------- posterior


def evidence_of(kind, x0, rng):
    """What a noise process would let us see of texts (B, L): log q(observed[i] | x_0[i] = v), (B, L, V)."""
    B = len(x0)
    if kind == "masked":
        return MICRO.seen(torch.where(torch.rand(B, L, generator=rng) < 0.5, MASK, x0))
    if kind == "uniform":
        share = 0.6
        noise = torch.randint(0, V, (B, L), generator=rng)
        seen = torch.where(torch.rand(B, L, generator=rng) < share, noise, x0)
        return (share / V + (1 - share) * torch.nn.functional.one_hot(seen, V).double()).log()
    vectors = torch.randn(V, 3, dtype=torch.float64, generator=rng)
    seen = vectors[x0] + 0.7 * torch.randn(B, L, 3, dtype=torch.float64, generator=rng)
    return -((seen[:, :, None] - vectors) ** 2).sum(-1) / (2 * 0.7**2)


def brute_posterior(evidence, prior=PROBS):
    """Bayes over the 16 texts, written out."""
    likelihood = evidence[:, torch.arange(L), TEXTS].sum(-1).exp()  # (B, 16)
    joint = likelihood * prior
    total = joint.sum(1)
    shown = torch.nn.functional.one_hot(TEXTS, V).double()  # (16, L, V)
    return total.log(), torch.einsum("bk,klv->blv", joint / total[:, None], shown)


@pytest.mark.parametrize("kind", ["masked", "uniform", "gaussian"])
@pytest.mark.parametrize("label", [None, "short", "long"])
def test_posterior_is_brute_force_conditioning(kind, label):
    """200 random observations of each kind of noise on micro."""
    rng = generator(7)
    prior = PROBS if label is None else PROBS * torch.tensor([label == one for one in LABELS])
    evidence = evidence_of(kind, MICRO.sample(200, rng, label), rng)
    log_p, probs = MICRO.posterior(evidence, label)
    want_log_p, want_probs = brute_posterior(evidence, prior / prior.sum())
    torch.testing.assert_close(log_p, want_log_p, atol=1e-12, rtol=0)
    torch.testing.assert_close(probs, want_probs, atol=1e-12, rtol=0)


@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(0, 300), forbidden=st.floats(0, 0.5))
def test_posterior_of_any_evidence(seed, scale, forbidden):
    """Evidence need not come from a noise process: any table of log-likelihoods, also very sharp ones."""
    rng = generator(seed)
    evidence = scale * torch.randn(3, L, V, dtype=torch.float64, generator=rng)
    evidence[torch.rand(3, L, V, generator=rng) < forbidden] = -torch.inf
    log_joint = evidence[:, torch.arange(L), TEXTS].sum(-1) + PROBS.log()
    log_p, probs = MICRO.posterior(evidence)
    torch.testing.assert_close(log_p, log_joint.logsumexp(1), atol=1e-9, rtol=1e-12)
    weights = (log_joint - log_joint.logsumexp(1, keepdim=True)).exp().nan_to_num(0.0)
    want = torch.einsum("bk,klv->blv", weights, torch.nn.functional.one_hot(TEXTS, V).double())
    torch.testing.assert_close(probs, want, atol=1e-9, rtol=0)


def posterior_bounds(p, n, cells, chance=1e-6):
    """How far the frequency of an event of probability p may be off in n trials: Bernstein, over all cells at once."""
    c = math.log(2 * cells / chance)
    return (2 * p * (1 - p).clamp(min=0) * c / n).sqrt() + 2 * c / (3 * n)


@pytest.mark.parametrize("noise", [0.0, 0.3], ids=["seen", "misread"])
def test_posterior_of_tales_is_what_matching_stories_say(noise):
    """Of 60,000 stories take those in which two words are seen, plain or through noise, and count every other word.

    At noise 0.3 each seen word is replaced by a random one with this probability, in the stories and in the evidence.
    Tolerance by Bernstein's inequality: all the 48 x 166 shares hold at once with a chance of failing under 1e-6.
    """
    rng = generator(3)
    x0 = TALES.sample(60_000, rng)
    places = torch.tensor([0, 2])
    words = torch.tensor(TALES.tokenizer.convert_tokens_to_ids(["One", "morning"]))
    hit = torch.rand(len(x0), 2, generator=rng) < noise
    seen = torch.where(hit, torch.randint(0, TALES.vocab_size, hit.shape, generator=rng), x0[:, places])
    matching = x0[(seen == words).all(1)]
    assert len(matching) > 3000

    evidence = torch.zeros(1, TALES.length, TALES.vocab_size, dtype=torch.float64)
    each = torch.full((2, TALES.vocab_size), noise / TALES.vocab_size, dtype=torch.float64)
    each[torch.arange(2), words] += 1 - noise
    evidence[0, places] = each.log()
    log_p, probs = TALES.posterior(evidence)
    shares = torch.nn.functional.one_hot(matching, TALES.vocab_size).sum(0) / len(matching)
    assert ((shares - probs[0]).abs() <= posterior_bounds(probs[0], len(matching), probs[0].numel())).all()
    rate = log_p.exp()
    assert (len(matching) / len(x0) - rate).abs() < posterior_bounds(rate, len(x0), 1)


def test_posterior_of_tales_remembers_across_sentences():
    """A name seen at the start decides the pronoun later, and the friend is somebody else."""
    text = "Tom ran to the park on a sunny day. He found an old hat under a bench. His friend Leo wanted the hat too."
    ids = torch.tensor([text_canvas(text + " Tom lost it.")[: len(text_canvas(text))]])
    words = TALES.tokenizer.convert_ids_to_tokens(ids[0].tolist())
    hidden = ids.clone()
    at = {word: words.index(word) for word in ("He", "His", "Leo", "wanted")}
    hidden[0, [at["He"], at["His"], at["Leo"]]] = TALES.mask_id
    hidden[0, at["wanted"] + 3 :] = TALES.mask_id
    probs = TALES.posterior(TALES.seen(hidden))[1][0]
    vocab = TALES.tokenizer.get_vocab()
    assert probs[at["He"], vocab["He"]] == pytest.approx(1)
    assert probs[at["His"], vocab["His"]] == pytest.approx(1)
    assert probs[at["Leo"], vocab["Tom"]] == 0
    assert probs[at["Leo"], vocab["Leo"]] == pytest.approx(1 / 7)


def test_large_batches_are_cut_and_put_together(monkeypatch):
    evidence = evidence_of("gaussian", MICRO.sample(10, generator()), generator())
    whole = MICRO.posterior(evidence)
    monkeypatch.setattr(MICRO, "_at_once", 3)
    torch.testing.assert_close(MICRO.posterior(evidence), whole, atol=0, rtol=0)
    assert len(MICRO.log_prob(TEXTS)) == 16


def test_impossible_evidence_has_no_posterior():
    ids = TEXTS[:1].clone()
    ids[0, 0] = MICRO.pad_id
    log_p, probs = MICRO.posterior(MICRO.seen(ids))
    assert log_p.item() == -math.inf and (probs == 0).all()


# ----------------------------------------------------------------------------------------------------------- denoiser


def test_exact_denoiser_is_the_conditional_of_every_state():
    """Each text under each pattern of masks, through the process: beliefs equal conditioning by enumeration."""
    process = masked_diffusion()
    states = torch.where(SUBSETS, MASK, TEXTS[:, None]).flatten(0, 1)
    want = brute_posterior(MICRO.seen(states))[1]
    torch.testing.assert_close(beliefs(MICRO.denoiser(process), states), want, atol=1e-12, rtol=0)
    long = torch.tensor([label == "long" for label in LABELS])
    states = torch.where(SUBSETS, MASK, TEXTS[long][:, None]).flatten(0, 1)
    want = brute_posterior(MICRO.seen(states), (PROBS * long) / PROBS[long].sum())[1]
    torch.testing.assert_close(beliefs(MICRO.denoiser(process, "long"), states), want, atol=1e-12, rtol=0)


@settings(max_examples=50)
@given(st.lists(st.integers(0, V - 1), min_size=L, max_size=L))
def test_exact_denoiser_answers_on_every_canvas(row):
    """Also where no story fits: a distribution at every position, with no NaN; next to a row that fits."""
    states = torch.tensor([row, [MASK] * L])
    probs = MICRO.denoiser(masked_diffusion())(states, torch.ones(2)).exp()
    torch.testing.assert_close(probs.sum(-1), torch.ones(2, L, dtype=torch.float64), atol=1e-9, rtol=0)
    torch.testing.assert_close(probs[1:], brute_posterior(MICRO.seen(states[1:]))[1], atol=1e-12, rtol=0)


def test_a_canvas_with_one_wrong_word_is_read_as_the_nearest_story():
    states = torch.tensor([[*TEXTS[0].tolist()]])
    states[0, 0] = MICRO.pad_id
    assert MICRO.denoiser(masked_diffusion())(states, torch.ones(1)).argmax(-1)[0, 1:].tolist() == TEXTS[0, 1:].tolist()


def test_decode_stops_at_the_end_and_shows_masks():
    ids = TEXTS[:1].clone()
    assert MICRO.decode(ids) == ["Mia ran"]
    ids[0, 1] = MASK
    assert MICRO.decode(ids) == ["Mia [MASK]"]


# ------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "ids",
    [
        torch.zeros(1, L + 1, dtype=torch.int64),
        torch.zeros(L, dtype=torch.int64),
        torch.zeros(1, L),
        torch.full((1, L), V),
        torch.full((1, L), -1),
    ],
    ids=["too long", "no batch axis", "float", "id too large", "negative id"],
)
@pytest.mark.parametrize("ask", [MICRO.log_prob, MICRO.parse, MICRO.seen])
def test_ids_that_are_no_canvas_raise(ids, ask):
    with pytest.raises(ValueError, match="StoryLanguage: ids must"):
        ask(ids)


@pytest.mark.parametrize(
    ("evidence", "message"),
    [
        (torch.zeros(1, L, V + 1), "must be"),
        (torch.zeros(L, V), "must be"),
        (torch.full((1, L, V), torch.nan), "NaN"),
        (torch.full((1, L, V), torch.inf), "inf"),
    ],
)
def test_evidence_that_is_none_raises(evidence, message):
    with pytest.raises(ValueError, match=f"posterior: log_evidence .*{message}"):
        MICRO.posterior(evidence)


def test_unknown_names_list_the_choices():
    with pytest.raises(ValueError, match=r"'sagas', 'tales'\], got 'novel'"):
        load_language("novel")
    with pytest.raises(ValueError, match=r"\['short', 'long'\], got 'sad'"):
        MICRO.sample(1, generator(), "sad")
    with pytest.raises(ValueError, match="label must be one of"):
        MICRO.posterior(torch.zeros(1, L, V), "sad")


def test_a_template_that_does_not_fit_the_canvas_raises():
    grammar = MICRO_GRAMMAR._replace(templates=[Template("{Mia} {ran} {Mia} {ran} {Mia}", 1.0, "long")])
    with pytest.raises(ValueError, match="must fit 5 positions"):
        StoryLanguage(grammar)
