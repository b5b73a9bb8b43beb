"""What tests/test_doors.py tries: every public function, asked for what it documents, and for what lies just outside.

A case is called with a generator. Inputs that several cases share are capitals; no case may change them.
"""

import math
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import torch
from datasets import Dataset
from toys import MASK, MICRO, TEXTS, L, V, generator, masked_diffusion, uniform_denoiser

import diffkit
from diffkit import model
from diffkit.course.experiments import leaderboard, scaling
from diffkit.data import batches, corpus, tokenizer
from diffkit.evaluation import bounds, infilling, judge, parallel_cost, samples
from diffkit.languages import story_language
from diffkit.languages.tales import Grammar, Template
from diffkit.model import build_model
from diffkit.network import conditioning
from diffkit.processes import masked, schedules, transitions
from diffkit.processes.block import BlockDiffusion
from diffkit.processes.d3pm import D3PM
from diffkit.processes.diffusion_lm import DiffusionLM
from diffkit.processes.masked import MaskedDiffusion
from diffkit.processes.plaid import Plaid
from diffkit.processes.sedd import SEDD, UDLM
from diffkit.random import categorical, highest, inverse_cdf, normal_like, uniform_like, uniform_numbers
from diffkit.sampling import (
    block_cache,
    embedding_guidance,
    guidance,
    logits,
    remasking,
    skipping,
    unmasking,
    variable_length,
)
from diffkit.training import config, losses
from diffkit.training.checkpoint import drop_checkpoints, load_checkpoint

sample = import_module("diffkit.sampling.sampler")  # diffkit.sampling.sampler itself is the function
ABSENT = Path(__file__).parent / "no-such-folder"
NAN, INF = math.nan, math.inf
BLOCKED = BlockDiffusion(V, MASK, 2)
PROCESSES = {
    "mdlm": masked_diffusion(), "continuous": masked_diffusion(weight="continuous"), "d3pm": D3PM(V, MASK, "uniform"),
    "d3pm-gaussian": D3PM(V, MASK, "gaussian", schedules.get_schedule("linear", 20)), "sedd": SEDD(V, MASK),
    "udlm": UDLM(V, MASK), "diffusion_lm": DiffusionLM(V, MASK, width=4), "plaid": Plaid(V, MASK, width=4),
}  # fmt: skip
MDLM, UNIFORM, POINTS, SPACE = (PROCESSES[name] for name in ("mdlm", "d3pm", "diffusion_lm", "plaid"))
EXACT, SHORT = MICRO.denoiser(MDLM), masked_diffusion(schedules.get_schedule("linear", 20))
X0 = TEXTS[[0, 5, 9]].clone()  # (3, L)
B = len(X0)
CANVAS = X0.clone()
CANVAS[:, 1:4] = MASK
BLANK = torch.full((B, L), MASK)
IS_MASKED = CANVAS == MASK
LOGITS = torch.randn(B, L, V, generator=generator(1))
PROBS = LOGITS.double().softmax(-1)
HIDDEN = PROBS[IS_MASKED]  # (N, V)
TIMES = torch.tensor([1.0, 500.0, 1000.0])
U = torch.rand(B, L, dtype=torch.float64, generator=generator(2))
LINEAR = schedules.get_schedule("linear")
GRID = skipping.even_times(1000, 8)
POINT = scaling.Point("mdlm", 16, 1, 10, 0, L)
with torch.random.fork_rng():
    torch.manual_seed(0)
    NET, LABELLED = (
        build_model(MDLM, {"hidden_size": 16, "num_layers": 1, "num_heads": 2}, labels=n, max_length=L).eval()
        for n in (0, len(MICRO.labels))
    )
    TWIN_BY_BLOCKS = build_model(BLOCKED, {"hidden_size": 16, "num_layers": 1, "num_heads": 2}, max_length=L).eval()
WORDS = tokenizer.word_level_tokenizer(["one", "two", "."])
CHUNKS = Dataset.from_dict({"input_ids": X0.tolist()})
DOCUMENTS = Dataset.from_dict({"text": ["one two .", "two one ."]})
NO_TEXT = X0[:0]
BEYOND = X0.clone()
BEYOND[0, 0] = V  # an id outside the vocabulary
BELOW = X0.clone()
BELOW[0, 0] = -1
INPUTS = [X0, CANVAS, BLANK, IS_MASKED, LOGITS, PROBS, HIDDEN, TIMES, U, GRID, BEYOND, BELOW]
RATE = remasking.RemaskState(0.5, 0.6, ~IS_MASKED, U)

INSIDE: dict[str, list] = {}  # function: what it is asked, and the shape of the answer
OUTSIDE: dict[str, list] = {}  # function: what it is asked, what of it the message must show, and who speaks


def inside(name, *cases):
    INSIDE.setdefault(name, []).extend(cases)


def outside(name, *cases, who=None):
    OUTSIDE.setdefault(name, []).extend((call, shows, who or name.split(".")[-1]) for call, shows in cases)


# ---------------------------------------------------------------------------------------------------- language and text

inside("language.load_language", (lambda rng: story_language.load_language("micro"), "StoryLanguage"))
inside(
    "language.StoryLanguage",
    (lambda rng: story_language.StoryLanguage(MICRO.grammar), "StoryLanguage"),
    (lambda rng: MICRO.sample(3, rng), "(3, 5) int64"),
    (lambda rng: MICRO.sample(0, rng), "(0, 5) int64"),
    (lambda rng: MICRO.sample(2, rng, label="long"), "(2, 5) int64"),
    (lambda rng: MICRO.log_prob(CANVAS), "(3,) float64"),
    (lambda rng: MICRO.log_prob(NO_TEXT), "(0,) float64"),
    (lambda rng: MICRO.log_prob(X0.int()), "(3,) float64"),
    (lambda rng: MICRO.parse(X0), "(3,) int64"),
    (lambda rng: MICRO.posterior(torch.zeros(1, L, V), "long"), "[(1,) float64, (1, 5, 8) float64]"),
    (lambda rng: MICRO.seen(CANVAS) == 0, "(3, 5, 8) bool"),
    (lambda rng: MICRO.decode(CANVAS), "[str, str, str]"),
    (lambda rng: MICRO.decode(NO_TEXT), "[]"),
    (lambda rng: MICRO.entropy(), "float"),
    (lambda rng: EXACT(CANVAS, TIMES).softmax(-1), "(3, 5, 8) float64"),
)
inside("tokenizer.word_level_tokenizer", (lambda rng: tokenizer.word_level_tokenizer(["one"]), "TokenizersBackend"))
inside("tokenizer.train_tokenizer", (lambda rng: tokenizer.train_tokenizer(["a cat"] * 9, 262), "TokenizersBackend"))
inside("tokenizer.special_ids", (lambda rng: tokenizer.special_ids(WORDS), "[int, int, int]"))
inside("data.fixed_batches", (lambda rng: list(batches.fixed_batches(CHUNKS, 2)), "[(2, 5) int64, (1, 5) int64]"))
inside("data.ChunkBatches", (lambda rng: next(batches.ChunkBatches(CHUNKS, 7, 0)), "(7, 5) int64"))
inside("data.StoryBatches", (lambda rng: next(batches.StoryBatches(MICRO, 4, 0, "long")), "(4, 5) int64"))
inside(
    "data.StreamBatches",
    (
        lambda rng: next(batches.StreamBatches(DOCUMENTS.to_iterable_dataset(), WORDS, 2, 3, seed=0, buffer=0)),
        "(3, 2) int64",
    ),
)
inside(
    "corpus.split_documents",
    (lambda rng: len(corpus.split_documents(DOCUMENTS, validation_documents=1, seed=0).train), "int"),
)
inside("corpus.seed_from", (lambda rng: corpus.seed_from(0, "x"), "int"))

outside("language.load_language", (lambda rng: story_language.load_language("tale"), "'tale'"))
outside(
    "language.StoryLanguage",
    (lambda rng: story_language.StoryLanguage(Grammar({}, [Template("far too many words", 1.0, "x")], 4)), "4 words"),
    (lambda rng: MICRO.sample(-1, rng), "-1"),
    (lambda rng: MICRO.sample(1.5, rng), "1.5"),
    (lambda rng: MICRO.sample(1, rng, label="sad"), "'sad'"),
    (lambda rng: MICRO.denoiser(MDLM, "sad"), "'sad'"),
    (lambda rng: MICRO.log_prob(X0.double()), "float64"),
    (lambda rng: MICRO.log_prob(IS_MASKED), "bool"),
    (lambda rng: MICRO.log_prob(X0[0]), "(5,)"),
    (lambda rng: MICRO.log_prob(X0[:, :4]), "(3, 4)"),
    (lambda rng: MICRO.log_prob(BEYOND), "8"),
    (lambda rng: MICRO.log_prob(BELOW), "-1"),
    (lambda rng: MICRO.parse(BEYOND), "8"),
    (lambda rng: MICRO.decode(X0[0]), "(5,)"),
    (lambda rng: MICRO.decode(BEYOND), "8"),
    (lambda rng: MICRO.decode(X0.double()), "float64"),
    (lambda rng: MICRO.posterior(torch.zeros(2, L, V), "sad"), "'sad'"),
)
outside(
    "language.StoryLanguage",
    (lambda rng: MICRO.posterior(torch.zeros(0, L, V)), "(0, 5, 8)"),
    (lambda rng: MICRO.posterior(torch.zeros(2, L, V + 1)), "(2, 5, 9)"),
    (lambda rng: MICRO.posterior(torch.full((2, L, V), NAN)), "NaN"),
    (lambda rng: MICRO.posterior(torch.full((2, L, V), INF)), "inf"),
    (lambda rng: EXACT(BLANK[:, :3], TIMES), "(3, 3, 8)"),
    who="posterior",
)
outside("language.StoryLanguage", (lambda rng: MICRO.sample(2, None), "NoneType"), who="rng")
outside(
    "tokenizer.word_level_tokenizer",
    (lambda rng: tokenizer.word_level_tokenizer(["one", "one"]), "'one'"),
    (lambda rng: tokenizer.word_level_tokenizer(["two words"]), "'two words'"),
    (lambda rng: tokenizer.word_level_tokenizer([""]), "''"),
)
outside(
    "tokenizer.train_tokenizer",
    (lambda rng: tokenizer.train_tokenizer(["text"], 10), "10"),
    (lambda rng: tokenizer.train_tokenizer([]), "empty"),
    (lambda rng: tokenizer.train_tokenizer("one text in place of many"), "one text"),
)
outside(
    "tokenizer.special_ids",
    (lambda rng: tokenizer.special_ids(SimpleNamespace(mask_token_id=None, pad_token_id=0, eos_token_id=1)), "MASK"),
)
outside("tokenizer.load_tokenizer", (lambda rng: tokenizer.load_tokenizer(ABSENT.parent), "tests"))
outside("data.fixed_batches", (lambda rng: next(batches.fixed_batches(CHUNKS, 0)), "0"))
outside(
    "chunks.tokenize_corpus",
    (lambda rng: batches.tokenize_corpus(DOCUMENTS.to_iterable_dataset(), WORDS, 4), "streamed"),
)
outside("chunks.tokenize_corpus", (lambda rng: batches.tokenize_corpus(DOCUMENTS, WORDS, 0), "0"), who="tokenize")
outside(
    "data.ChunkBatches",
    (lambda rng: batches.ChunkBatches(CHUNKS, 0, 0), "0"),
    (lambda rng: batches.ChunkBatches(CHUNKS.select([]), 2, 0), "0"),
    (lambda rng: batches.ChunkBatches(CHUNKS, 2, 0).load_state_dict({"position": 1}), "None there"),
)
outside(
    "data.StoryBatches",
    (lambda rng: batches.StoryBatches(MICRO, 0, 0), "0"),
    (lambda rng: batches.StoryBatches(MICRO, 2, 0).load_state_dict({"position": 1}), "None there"),
)
outside(
    "data.StreamBatches",
    (lambda rng: batches.StreamBatches(DOCUMENTS.to_iterable_dataset(), WORDS, 2, 0, seed=0), "0"),
    (lambda rng: next(batches.StreamBatches(DOCUMENTS.to_iterable_dataset(), WORDS, 99, 1, seed=0)), "99"),
)
outside(
    "data.StreamBatches",
    (lambda rng: batches.StreamBatches(DOCUMENTS.to_iterable_dataset(), WORDS, 0, 1, seed=0), "0"),
    who="tokenize",
)
outside(
    "corpus.load_corpus",
    (lambda rng: corpus.load_corpus(ABSENT), "no-such-folder"),
    (lambda rng: corpus.load_corpus("wikitext-2", "dev"), "'dev'"),
)


# ---------------------------------------------------------------------------------------------------- noise and draws

inside(
    "noise.get_schedule",
    *(
        (lambda rng, name=name: schedules.get_schedule(name, 1).gamma(torch.tensor([0, 1])), "(2,) float64")
        for name in [*schedules.CURVES, *schedules.FAMILIES]
    ),
)
inside(
    "noise.Schedule",
    (lambda rng: LINEAR.gamma(500), "() float64"),
    (lambda rng: LINEAR.gamma(torch.zeros(0)), "(0,) float64"),
    (lambda rng: LINEAR.dgamma(TIMES), "(3,) float64"),
    (lambda rng: LINEAR.time_of(torch.rand(2, 3, generator=rng)), "(2, 3) float64"),
)
inside(
    "noise.corrupt",
    (lambda rng: schedules.corrupt(X0, TIMES, schedule=LINEAR, mask_id=MASK, rng=rng), "[(3, 5) int64, (3, 5) bool]"),
    (
        lambda rng: schedules.corrupt(X0, 5, schedule=LINEAR, mask_id=MASK, rng=rng, frozen=IS_MASKED),
        "[(3, 5) int64, (3, 5) bool]",
    ),
    (lambda rng: schedules.corrupt(NO_TEXT, 5, schedule=LINEAR, mask_id=MASK, rng=rng), "[(0, 5) int64, (0, 5) bool]"),
    (
        lambda rng: schedules.corrupt(X0[:, :0], 5, schedule=LINEAR, mask_id=MASK, rng=rng),
        "[(3, 0) int64, (3, 0) bool]",
    ),
)
inside(
    "noise.corrupt_count",
    (lambda rng: schedules.corrupt_count(X0, 2, mask_id=MASK, rng=rng), "[(3, 5) int64, (3, 5) bool]"),
    (
        lambda rng: schedules.corrupt_count(X0, torch.tensor([0, 1, L]), mask_id=MASK, rng=rng),
        "[(3, 5) int64, (3, 5) bool]",
    ),
)
inside("noise.check_mask_id", (lambda rng: schedules.check_mask_id(2, 1, "x"), "None"))
inside("noise.check_clean", (lambda rng: schedules.check_clean(X0, MASK, IS_MASKED), "None"))
inside("draws.uniform_numbers", (lambda rng: uniform_numbers((2, 3), rng), "(2, 3) float64"))
inside("draws.uniform_like", (lambda rng: uniform_like(X0, rng), "(3, 5) float64"))
inside("draws.normal_like", (lambda rng: normal_like(NO_TEXT, rng), "(0, 5) float64"))
inside(
    "draws.categorical",
    (lambda rng: categorical(PROBS, rng), "(3, 5) int64"),
    (lambda rng: categorical(PROBS.bfloat16(), rng), "(3, 5) int64"),
    (lambda rng: categorical(torch.tensor([0, 2, 1]), rng), "() int64"),
    (lambda rng: categorical(PROBS[:0], rng), "(0, 5) int64"),
)
inside("draws.inverse_cdf", (lambda rng: inverse_cdf(PROBS, U), "(3, 5) int64"))
inside("draws.highest", (lambda rng: highest(U, IS_MASKED, torch.tensor([0, 1, 9])), "(3, 5) bool"))

outside(
    "noise.get_schedule",
    (lambda rng: schedules.get_schedule("linea"), "'linea'"),
    (lambda rng: schedules.get_schedule(None), "None"),
    (lambda rng: schedules.get_schedule("linear", 0), "0"),
    (lambda rng: schedules.get_schedule("linear", -3), "-3"),
    (lambda rng: schedules.get_schedule("linear", 1.5), "1.5"),
    (lambda rng: schedules.get_schedule("linear", NAN), "nan"),
    (lambda rng: schedules.get_schedule("linear", INF), "inf"),
    (lambda rng: schedules.get_schedule("linear", power=2), "power"),
    (lambda rng: schedules.get_schedule("poly", power=0), "0"),
    (lambda rng: schedules.get_schedule("poly", power=NAN), "nan"),
    (lambda rng: schedules.get_schedule("poly", power=INF), "inf"),
    (lambda rng: schedules.get_schedule("loglinear", eps=1.0), "1.0"),
    (lambda rng: schedules.get_schedule("geometric", sigma_max=INF), "inf"),
    (lambda rng: schedules.get_schedule("geometric", sigma_min=20.0, sigma_max=1.0), "20.0"),
    (lambda rng: schedules.get_schedule("vp_linear", sigma_min=20.0, sigma_max=1.0), "20.0"),
)
outside(
    "noise.Schedule",
    (lambda rng: LINEAR.gamma(-1e-9), "-1e-09"),
    (lambda rng: LINEAR.gamma(1000.001), "1000"),
    (lambda rng: LINEAR.gamma(torch.tensor([1.0, NAN])), "NaN"),
    (lambda rng: LINEAR.dgamma(INF), "inf"),
    (lambda rng: LINEAR.gamma(IS_MASKED), "bool"),
    who="linear schedule",
)
outside(
    "noise.Schedule",
    (lambda rng: LINEAR.time_of(1.5), "1.5"),
    (lambda rng: LINEAR.time_of(-0.5), "-0.5"),
    (lambda rng: LINEAR.time_of(NAN), "NaN"),
    who="time_of",
)
outside(
    "noise.corrupt",
    (lambda rng: schedules.corrupt(X0.double(), 5, schedule=LINEAR, mask_id=MASK, rng=rng), "float64"),
    (lambda rng: schedules.corrupt(IS_MASKED, 5, schedule=LINEAR, mask_id=MASK, rng=rng), "bool"),
    (lambda rng: schedules.corrupt(X0[0], 5, schedule=LINEAR, mask_id=MASK, rng=rng), "(5,)"),
    (lambda rng: schedules.corrupt(CANVAS, 5, schedule=LINEAR, mask_id=MASK, rng=rng), "MASK"),
    (lambda rng: schedules.corrupt(X0, TIMES[:2], schedule=LINEAR, mask_id=MASK, rng=rng), "(2,)"),
    (lambda rng: schedules.corrupt(X0, TIMES[:, None], schedule=LINEAR, mask_id=MASK, rng=rng), "(3, 1)"),
    (lambda rng: schedules.corrupt(X0, 5, schedule=LINEAR, mask_id=MASK, rng=rng, frozen=IS_MASKED[:1]), "(1, 5)"),
    (lambda rng: schedules.corrupt(X0, 5, schedule=LINEAR, mask_id=MASK, rng=rng, frozen=X0), "int64"),
)
outside(
    "noise.corrupt",
    (lambda rng: schedules.corrupt(X0, NAN, schedule=LINEAR, mask_id=MASK, rng=rng), "NaN"),
    (lambda rng: schedules.corrupt(X0, -1, schedule=LINEAR, mask_id=MASK, rng=rng), "-1"),
    (lambda rng: schedules.corrupt(X0, 1001, schedule=LINEAR, mask_id=MASK, rng=rng), "1001"),
    who="linear schedule",
)
for who in (None, 0, torch.tensor(0)):
    kind = type(who).__name__
    outside("draws.uniform_numbers", (lambda rng, who=who: uniform_numbers((2,), who), kind), who="rng")
    outside("draws.uniform_like", (lambda rng, who=who: uniform_like(X0, who), kind), who="rng")
    outside("draws.normal_like", (lambda rng, who=who: normal_like(X0, who), kind), who="rng")
    outside("draws.categorical", (lambda rng, who=who: categorical(PROBS, who), kind), who="rng")
    outside(
        "noise.corrupt",
        (lambda rng, who=who: schedules.corrupt(X0, 5, schedule=LINEAR, mask_id=MASK, rng=who), kind),
        who="rng",
    )
outside(
    "noise.corrupt_count",
    (lambda rng: schedules.corrupt_count(X0, -1, mask_id=MASK, rng=rng), "-1"),
    (lambda rng: schedules.corrupt_count(X0, L + 1, mask_id=MASK, rng=rng), "6"),
    (lambda rng: schedules.corrupt_count(X0, 3, mask_id=MASK, rng=rng, frozen=~IS_MASKED[:, [0, 0, 1, 0, 0]]), "3"),
    (lambda rng: schedules.corrupt_count(X0, 1.5, mask_id=MASK, rng=rng), "float"),
    (lambda rng: schedules.corrupt_count(X0, torch.tensor([1, 2]), mask_id=MASK, rng=rng), "(2,)"),
)
outside("noise.check_mask_id", (lambda rng: schedules.check_mask_id(5, 5, "check_mask_id"), "5"))
outside("noise.check_clean", (lambda rng: schedules.check_clean(CANVAS, MASK), "MASK"), who="corrupt")
outside(
    "draws.categorical",
    (lambda rng: categorical(-PROBS, rng), "negative"),
    (lambda rng: categorical(PROBS * NAN, rng), "NaN"),
    (lambda rng: categorical(PROBS / 0, rng), "infinite"),
    (lambda rng: categorical(0 * PROBS, rng), "zeros"),
    (lambda rng: categorical(PROBS[..., :0], rng), "(3, 5, 0)"),
    (lambda rng: categorical(torch.tensor(1.0), rng), "()"),
)
outside("draws.inverse_cdf", (lambda rng: inverse_cdf(0 * PROBS, U), "zeros"), who="categorical")


# ---------------------------------------------------------------------------------------------------------- processes

inside(
    "diffusion.logits_at",
    (lambda rng: masked.logits_at(uniform_denoiser, CANVAS, TIMES, IS_MASKED), "(9, 8) float64"),
)
inside("diffusion.network_of", (lambda rng: masked.network_of(NET), "DiffusionModel"))
inside("diffusion.beside", (lambda rng: masked.on_device_of(NET, X0), "(3, 5) int64"))
inside("diffusion.without_mask", (lambda rng: masked.without_mask(LOGITS, MASK).exp(), "(3, 5, 8) float32"))
inside("diffusion.subs_log_probs", (lambda rng: masked.subs_log_probs(LOGITS, CANVAS, MASK).exp(), "(3, 5, 8) float32"))
inside(
    "diffusion.masked_nll",
    (lambda rng: masked.masked_nll(LOGITS[IS_MASKED], X0, IS_MASKED, MASK), "(3, 5) float32"),
    (lambda rng: masked.masked_nll(LOGITS[IS_MASKED].bfloat16(), X0, IS_MASKED, MASK), "(3, 5) float32"),
)
inside("diffusion.discrete_weight", (lambda rng: masked.discrete_weight(LINEAR, TIMES), "(3,) float64"))
inside("diffusion.continuous_weight", (lambda rng: masked.continuous_weight(LINEAR, TIMES), "(3,) float64"))
inside(
    "diffusion.MaskedDiffusion",
    (lambda rng: MaskedDiffusion.from_settings(masked_diffusion("poly").settings()), "MaskedDiffusion"),
    (lambda rng: MDLM.count_loss(EXACT, X0, torch.tensor([1, 2, L]), rng), "(3, 5) float64"),
    (lambda rng: MDLM.stay_masked(TIMES, TIMES - 1), "(3,) float64"),
)
inside("noise.schedule_settings", (lambda rng: schedules.schedule_settings(LINEAR)["T"], "int"))
inside("noise.schedule_from", (lambda rng: schedules.schedule_from(schedules.schedule_settings(LINEAR)), "Schedule"))
inside("transitions.uniform_over_tokens", (lambda rng: transitions.uniform_over_tokens(V, MASK), "(8,) float64"))
inside("transitions.point_mass_at_mask", (lambda rng: transitions.point_mass_at_mask(V, MASK), "(8,) float64"))
inside(
    "transitions.get_transitions",
    *(
        (
            lambda rng, name=name: transitions.get_transitions(
                name, V, MASK, schedules.get_schedule("linear", 4)
            ).marginal(PROBS, 1, 4),
            "(3, 5, 8) float64",
        )
        for name in transitions.TRANSITIONS
    ),
)
inside(
    "transitions.transition_settings", (lambda rng: transitions.transition_settings(UNIFORM.transitions)["T"], "int")
)
inside("transitions.transitions_from", (lambda rng: transitions.transitions_from(UNIFORM.settings()), "Mixing"))
inside("transitions.before_end", (lambda rng: transitions.before_end(TIMES, 1000), "(3,) float64"))
inside("transitions.check_reached", (lambda rng: transitions.check_reached(UNIFORM.transitions, X0), "None"))
inside("transitions.leave_one_out", (lambda rng: transitions.leave_one_out(PROBS.log(), LOGITS), "(3, 5, 8) float64"))
inside("transitions.divergence", (lambda rng: transitions.divergence(PROBS, PROBS.flip(0)), "(3, 5) float64"))
inside("transitions.Gaussian", (lambda rng: PROCESSES["d3pm-gaussian"].transitions.one_step(3), "(8, 8) float64"))
for name in ("leap", "tweedie", "euler"):
    inside(
        f"sedd.{name}",
        (
            lambda rng, name=name: getattr(diffkit.processes.sedd, name)(
                PROCESSES["sedd"], PROBS, CANVAS, TIMES - 0.5, TIMES - 1
            ),
            "(3, 5, 8) float64",
        ),
    )
for name in ("ddpm", "ddim", "renoise"):
    inside(
        f"wordvectors.{name}",
        (
            lambda rng, name=name: diffkit.processes.embedding_diffusion.MOVERS[name](
                POINTS, PROBS[..., :4], PROBS[..., 4:], TIMES, TIMES / 2, rng
            ),
            "(3, 5, 4) float64",
        ),
    )
inside(
    "wordvectors.EmbeddingDiffusion",
    (lambda rng: SPACE.add_noise(SPACE.prior(2, L, rng), 3, 5, rng), "(2, 5, 4) float64"),
    (lambda rng: SPACE.decode(SPACE.prior(2, L, rng)), "(2, 5) int64"),
    (lambda rng: POINTS.end_to_end(lambda z, t: z, X0, TIMES, rng), "() float64"),
)

inside("transitions.Mixing", (lambda rng: UNIFORM.transitions.marginal(PROBS, TIMES / 2, TIMES), "(3, 5, 8) float64"))

for kind in (MaskedDiffusion, D3PM, SEDD, UDLM, DiffusionLM, Plaid):
    name = f"{kind.__module__.split('.')[-1]}.{kind.__name__}"
    inside(name, (lambda rng, kind=kind: kind.from_settings(kind(2, 0).settings()), kind.__name__))
    outside(
        name,
        (lambda rng, kind=kind: kind(V, V), "8"),
        (lambda rng, kind=kind: kind(V, -1), "-1"),
        (lambda rng, kind=kind: kind(1, 0), "1"),
        who=r"\w+",
    )
for kind in (MaskedDiffusion, D3PM, SEDD, UDLM):
    name = f"{kind.__module__.split('.')[-1]}.{kind.__name__}"
    outside(name, (lambda rng, kind=kind: kind(V, MASK, schedule="linea"), "'linea'"), who="get_schedule")
for kind in (DiffusionLM, Plaid):
    outside(
        f"gaussian.{kind.__name__}",
        (lambda rng, kind=kind: kind(V, MASK, 0), "got 0"),
        (lambda rng, kind=kind: kind(V, MASK, 1.5), "got 1.5"),
        (lambda rng, kind=kind: kind(V, MASK, NAN), "nan"),
        (lambda rng, kind=kind: kind(V, MASK, width=0), "got 0"),
        (lambda rng, kind=kind: kind(V, MASK, sampler="ddps"), "'ddps'"),
    )
outside(
    "diffusion.MaskedDiffusion",
    (lambda rng: MaskedDiffusion(V, MASK, weight="discret"), "'discret'"),
)
outside(
    "diffusion.MaskedDiffusion",
    (lambda rng: MDLM.stay_masked(TIMES, TIMES), "t=1"),
    (lambda rng: MDLM.step(EXACT, CANVAS, TIMES, TIMES + 1, rng), "t=1"),
    who="stay_masked",
)
outside(
    "diffusion.MaskedDiffusion",
    (lambda rng: MDLM.count_loss(EXACT, X0, torch.tensor([0, 1, 1]), rng), "0"),
    who="count_loss",
)
outside(
    "diffusion.MaskedDiffusion",
    (lambda rng: MDLM.count_loss(EXACT, X0, torch.tensor([1, 1, L + 1]), rng), "6"),
    who="corrupt_count",
)
outside("diffusion.discrete_weight", (lambda rng: masked.discrete_weight(LINEAR, TIMES - 0.5), "0.5"))
outside("diffusion.discrete_weight", (lambda rng: masked.discrete_weight(LINEAR, TIMES - 1), "0"))
outside("diffusion.continuous_weight", (lambda rng: masked.continuous_weight(LINEAR, TIMES - 1), "0"))
outside(
    "transitions.get_transitions",
    (lambda rng: transitions.get_transitions("unifrom", V, MASK, "linear"), "'unifrom'"),
    (lambda rng: transitions.get_transitions("uniform", V, V, "linear"), "8"),
    (lambda rng: transitions.get_transitions("uniform", V, MASK, "linear", beta_last=1.0), "beta_last"),
    (lambda rng: transitions.get_transitions("gaussian", V, MASK, "linear", beta=1.0), "'beta'"),
)
outside(
    "transitions.Gaussian",
    (lambda rng: transitions.Gaussian(V, MASK, LINEAR, beta_first=-1.0), "-1.0"),
    (lambda rng: transitions.Gaussian(V, MASK, LINEAR, beta_last=NAN), "nan"),
    (lambda rng: transitions.Gaussian(10_000, MASK, LINEAR), "100,100,000,000"),
    (lambda rng: PROCESSES["d3pm-gaussian"].transitions.marginal(PROBS, 0, -1), "-1"),
    (lambda rng: PROCESSES["d3pm-gaussian"].transitions.marginal(PROBS, 0, 21), "21"),
    (lambda rng: PROCESSES["d3pm-gaussian"].transitions.likelihood(PROBS, 5, 3), "5"),
    (lambda rng: PROCESSES["d3pm-gaussian"].transitions.likelihood(PROBS, 0, NAN), "nan"),
)
outside("transitions.Mixing", (lambda rng: UNIFORM.transitions.marginal(PROBS, 5, 3), "5"))
outside(
    "transitions.check_reached",
    (lambda rng: transitions.check_reached(UNIFORM.transitions, CANVAS), "MASK"),
    who="step",
)
outside(
    "transitions.before_end",
    (lambda rng: transitions.before_end(-1, 1000), "-1"),
    (lambda rng: transitions.before_end(1000.5, 1000), "1000.5"),
    (lambda rng: transitions.before_end(TIMES * NAN, 1000), "nan"),
    who="time",
)
outside("d3pm.D3PM", (lambda rng: D3PM(V, MASK, reverse="back"), "'back'"))
outside("d3pm.D3PM", (lambda rng: UNIFORM.loss(lambda z, t: LOGITS, X0, TIMES - 1, rng), "0"))
outside("d3pm.D3PM", (lambda rng: UNIFORM.loss(lambda z, t: LOGITS, X0, TIMES - 0.5, rng), "0.5"))
outside("sedd.SEDD", (lambda rng: SEDD(V, MASK, "gaussian"), "'gaussian'"))
outside("sedd.SEDD", (lambda rng: SEDD(V, MASK, sampler="leap"), "'leap'"))
outside("sedd.UDLM", (lambda rng: UDLM(V, MASK, sampler="leap"), "'leap'"))
outside("gaussian.DiffusionLM", (lambda rng: DiffusionLM(V, MASK, clamp=1.5), "1.5"))
outside("gaussian.DiffusionLM", (lambda rng: DiffusionLM(V, MASK, clamp=NAN), "nan"))
outside("gaussian.Plaid", (lambda rng: Plaid(V, MASK, bins=0), "0"))
outside("gaussian.Plaid", (lambda rng: Plaid(V, MASK, score_temperature=0), "0"))
outside("gaussian.Plaid", (lambda rng: Plaid(V, MASK, score_temperature=NAN), "nan"))
outside("gaussian.Plaid", (lambda rng: Plaid(V, MASK, first=9.0, last=1.0), "9.0"))
outside(
    "wordvectors.EmbeddingDiffusion",
    (lambda rng: SPACE.decode(CANVAS), "(3, 5)"),
    (lambda rng: SPACE.add_noise(SPACE.prior(2, L, rng), 5, 3, rng), "5"),
    (lambda rng: SPACE.step(lambda z, t: LOGITS, SPACE.prior(3, L, rng), TIMES, TIMES + 1, rng), "1001"),
    (lambda rng: POINTS.log_snr(1001), "1001"),
    (lambda rng: POINTS.log_snr(NAN), "nan"),
    (lambda rng: POINTS.loss(lambda z, t: z, X0, TIMES - 0.5, rng), "1..1000"),
    who="(DiffusionLM|Plaid)",
)


# ----------------------------------------------------------------------------------------------- model and training

inside("model.build_model", (lambda rng: build_model(MDLM, "pico", max_length=L, hidden_size=16), "DiffusionModel"))
inside(
    "model.DiffusionModel",
    (lambda rng: NET(CANVAS, 3.0).softmax(-1), "(3, 5, 8) float32"),
    (lambda rng: NET(CANVAS[:1].int(), TIMES[:1]).softmax(-1), "(1, 5, 8) float32"),
    (lambda rng: NET(CANVAS, TIMES, IS_MASKED).softmax(-1), "(9, 8) float32"),
    (lambda rng: LABELLED(CANVAS, TIMES, label=torch.tensor([0, 1, 2])).softmax(-1), "(3, 5, 8) float32"),
)
inside("model.model_folder", (lambda rng: model.model_folder("tales-mdlm").name, "str"))
inside("model.fingerprint", (lambda rng: model.fingerprint("tales-mdlm"), "str"))
inside("model.load_model", (lambda rng: model.load_model("pico-mdlm"), "DiffusionModel"))
inside("model.check_tokenizer", (lambda rng: model.check_tokenizer(NET, MICRO.tokenizer), "None"))
inside("objectives.low_discrepancy", (lambda rng: losses.low_discrepancy(5, 1000, rng), "(5,) int64"))
inside("objectives.low_discrepancy", (lambda rng: losses.low_discrepancy(0, 1, rng), "(0,) int64"))
inside("objectives.uniform", (lambda rng: losses.uniform(5, 1, rng), "(5,) int64"))
inside("objectives.pooled", (lambda rng: losses.pooled(torch.tensor(3.0), torch.tensor(0)), "() float32"))
for name, process in (
    ("cross_entropy", "mdlm"),
    ("sequence_mean", "mdlm"),
    ("bound", "sedd"),
    ("count_cross_entropy", "mdlm"),
    ("count_bound", "mdlm"),
    ("hybrid", "d3pm"),
    ("score_entropy", "sedd"),
    ("end_to_end", "diffusion_lm"),
    ("likelihood", "plaid"),
):
    inside(
        f"objectives.{name}",
        (
            lambda rng, name=name, process=PROCESSES[process]: losses.OBJECTIVES[name](
                process, lambda z, t: LOGITS[..., : process.head].double(), X0, torch.tensor([1, 500, 1000]), rng
            ),
            "() float64",
        ),
    )
inside("recipe.Curriculum", (lambda rng: config.Curriculum(0.5, 0.5, 0.5).reach(1.0), "float"))
inside("recipe.TrainConfig", (lambda rng: config.TrainConfig(warmup=0, decay=1.0).lr_scale(1999), "float"))

outside(
    "model.build_model",
    (lambda rng: build_model(MDLM, "picco"), "'picco'"),
    (lambda rng: build_model(MDLM, "pico", lenght=3), "'lenght'"),
)
outside("model.build_model", (lambda rng: build_model(MDLM, "pico", hidden_size=15), "15"), who="DenoiserConfig")
outside("model.DiffusionModel", (lambda rng: model.DiffusionModel(model.DiffusionConfig({"name": "mdml"})), "'mdml'"))
outside(
    "model.DiffusionModel",
    (lambda rng: NET(X0.double(), 3), "float64"),
    (lambda rng: NET(X0[0], 3), "(5,)"),
    (lambda rng: NET(NO_TEXT, 3), "(0, 5)"),
    (lambda rng: NET(X0[:, :0], 3), "(3, 0)"),
    (lambda rng: NET(BEYOND, 3), "8"),
    (lambda rng: NET(BELOW, 3), "-1"),
    (lambda rng: NET(torch.cat([X0, X0], 1), 3), "10"),
    (lambda rng: NET(X0, 3, label=torch.tensor([0, 1, 2])), "label"),
    (lambda rng: LABELLED(X0, 3, label=torch.tensor([0, 1, 3])), "3"),
    (lambda rng: LABELLED(X0, 3, label=torch.tensor([0, 1])), "(2,)"),
    (lambda rng: LABELLED(X0, 3, label=torch.tensor([0.0, 1.0, 0.5])), "float32"),
    (lambda rng: NET(X0, 3, IS_MASKED[:2]), "(2, 5)"),
    (lambda rng: NET(X0, 3, X0), "int64"),
    who="Denoiser",
)
outside(
    "model.load_model",
    (lambda rng: model.load_model("no-such-model"), "no-such-model"),
    (lambda rng: model.load_model(ABSENT), "no-such-folder"),
)
outside("model.fingerprint", (lambda rng: model.fingerprint("no-such-model"), "no-such-model"))
outside("model.check_tokenizer", (lambda rng: model.check_tokenizer(NET, WORDS), "7"))
outside("model.start_from", (lambda rng: model.start_from(NET, "tales-mdlm"), "tales-mdlm"))
outside("objectives.low_discrepancy", (lambda rng: losses.low_discrepancy(5, 10, None), "NoneType"), who="rng")
outside("objectives.uniform", (lambda rng: losses.uniform(5, 10, None), "NoneType"), who="rng")
outside(
    "recipe.Curriculum",
    *(
        (lambda rng, given=given: config.Curriculum(**given), str(*given.values()))
        for given in ({"start": 0.0}, {"start": 1.5}, {"start": NAN}, {"hold": -0.1}, {"ramp": 1.1}, {"hold": NAN})
    ),
)
outside(
    "recipe.TrainConfig",
    *(
        (lambda rng, given=given: config.TrainConfig(**given), [*given][0])
        for given in (
            {"objective": "nelbo"},
            {"times": "even"},
            {"optimizer": "sgd"},
            {"precision": "fp16"},
            {"steps": 0},
            {"steps": -1},
            {"accumulate": 0},
            {"save_every": 0},
            {"validate_every": 0},
            {"lr": 0.0},
            {"lr": NAN},
            {"lr": INF},
            {"muon_lr": -1.0},
            {"clip": 0.0},
            {"warmup": -1},
            {"weight_decay": -0.1},
            {"weight_decay": NAN},
            {"decay": 1.1},
            {"decay": NAN},
            {"ema": 1.0},
            {"drop_label": -0.1},
        )
    ),
)


# ---------------------------------------------------------------------------------------------------------- sampling

for score in unmasking.UNMASKING_ORDERS.values():
    inside(f"rules.{score.__name__}", (lambda rng, score=score: score(PROBS, rng), "(3, 5) float64"))
inside("rules.rounded", (lambda rng: unmasking.rounded(PROBS), "(3, 5, 8) float64"))
inside(
    "filters.cooler", (lambda rng: logits.with_temperature(uniform_denoiser, 0.5)(CANVAS, TIMES), "(3, 5, 8) float64")
)
inside("filters.cooler", (lambda rng: logits.with_temperature(EXACT, 0)(CANVAS, TIMES).exp(), "(3, 5, 8) float64"))
inside("filters.with_top_k", (lambda rng: logits.with_top_k(EXACT, 99)(CANVAS, TIMES).exp(), "(3, 5, 8) float64"))
inside("filters.with_top_p", (lambda rng: logits.with_top_p(EXACT, 1)(CANVAS, TIMES).exp(), "(3, 5, 8) float64"))
inside("filters.filtered", (lambda rng: logits.filtered(EXACT, 0.5, 3, 0.9)(CANVAS, TIMES).exp(), "(3, 5, 8) float64"))
inside(
    "filters.exclude_mask",
    (lambda rng: logits.exclude_mask(uniform_denoiser, MASK)(X0, TIMES).exp(), "(3, 5, 8) float64"),
)
inside(
    "sample.denoise_frames",
    *(
        (
            lambda rng, order=order: (
                sample.last_frame(
                    sample.denoise_frames(
                        SHORT, EXACT, shape=(2, L), steps=20 if order == "ancestral" else 1, rng=rng, order=order
                    )
                ).tokens
            ),
            "(2, 5) int64",
        )
        for order in ["ancestral", *unmasking.UNMASKING_ORDERS]
    ),
)
inside("sample.last_frame", (lambda rng: sample.last_frame(iter([sample.Frame(0, 1.0, X0, X0, None)])).t, "float"))
inside(
    "sample.sample",
    *(
        (lambda rng, it=it: sample.sample(it, MICRO.denoiser(it), shape=(1, L), steps=2, rng=rng), "(1, 5) int64")
        for it in PROCESSES.values()
    ),
)
inside(
    "sample.sample_many",
    (lambda rng: sample.sample_many(MDLM, EXACT, n=65, length=L, steps=1, rng=rng), "(65, 5) int64"),
)
inside("sample.infill", (lambda rng: sample.infill(MDLM, EXACT, CANVAS, steps=3, rng=rng, top_k=2), "(3, 5) int64"))
inside("sample.infill", (lambda rng: sample.infill(MDLM, EXACT, X0, steps=1, rng=rng), "(3, 5) int64"))
inside(
    "sample.noising_frames",
    (
        lambda rng: [f.tokens for f in sample.noising_frames(UNIFORM, X0, [0, 5, 1000], rng=rng)],
        "[(3, 5) int64, (3, 5) int64, (3, 5) int64]",
    ),
)
inside("sample.canvas_from_text", (lambda rng: sample.canvas_from_text("one ___{2} .", WORDS, 6), "(1, 6) int64"))
inside("sample.canvas_from_text", (lambda rng: sample.canvas_from_text("", WORDS, 1, complete=True), "(1, 1) int64"))
inside(
    "rules.Reveal",
    (lambda rng: unmasking.Unmasking(MDLM, "margin").step(EXACT, CANVAS, TIMES, TIMES - 1, rng).zs, "(3, 5) int64"),
)
inside(
    "fast.fast_frames",
    *(
        (
            lambda rng, it=it: sample.last_frame(skipping.fast_frames(it, EXACT, start=CANVAS, rng=rng)).tokens,
            "(3, 5) int64",
        )
        for it in (
            skipping.SkipIdle(MDLM, GRID),
            skipping.FirstHitting(MDLM),
            skipping.ParallelUnmasking(MDLM, skipping.confidence_threshold(0.5)),
            remasking.Remasking(MDLM, GRID, remasking.rescaled(0.5)),
            block_cache.Blockwise(MDLM, 2, skipping.most_confident(1)),
        )
    ),
)
inside("fast.Lazy", (lambda rng: skipping.SkipIdle(MDLM, torch.tensor([1000, 0])).times, "(2,) float64"))
inside("fast.FirstHitting", (lambda rng: [*skipping.FirstHitting(MDLM).moves(EXACT, X0, rng)], "[]"))
inside("fast.Remembered", (lambda rng: skipping.NoChangeCache(uniform_denoiser)(X0, TIMES), "(3, 5, 8) float64"))
inside(
    "fast.Parallel",
    (
        lambda rng: next(skipping.ParallelUnmasking(MDLM, skipping.confidence_threshold(1)).moves(EXACT, BLANK, rng))[
            1
        ],
        "(3, 5) int64",
    ),
)
inside("fast.Counted", (lambda rng: skipping.CallCounter(uniform_denoiser)(X0, TIMES, IS_MASKED), "(9, 8) float64"))
inside("fast.even_times", (lambda rng: skipping.even_times(1000, 1), "(2,) float64"))
inside(
    "fast.check_times",
    (lambda rng: skipping.check_times(torch.tensor([9, 9, 0]), 9, "x", loop_only=True), "(3,) float64"),
)
inside("fast.probs_at", (lambda rng: skipping.probs_at(MDLM, EXACT, CANVAS, TIMES, IS_MASKED), "(9, 8) float64"))
inside(
    "fast.logits_of_rows",
    (lambda rng: skipping.logits_of_rows(uniform_denoiser, CANVAS, TIMES, IS_MASKED), "(9, 8) float64"),
)
inside("fast.token_probs", (lambda rng: skipping.token_probs(MDLM, LOGITS[0]), "(5, 8) float64"))
inside(
    "fast.revealed",
    (lambda rng: skipping.revealed(MDLM, EXACT, CANVAS, TIMES, IS_MASKED, U), "[(3, 5) int64, (3, 5) float64]"),
)
inside("fast.expected_calls", (lambda rng: skipping.expected_calls(LINEAR, GRID, L), "float"))
inside("fast.takes_time", (lambda rng: skipping.takes_time(NET), "bool"))
inside("fast.scores", (lambda rng: skipping.scores(HIDDEN[:, 0], IS_MASKED)[IS_MASKED], "(9,) float64"))
inside(
    "fast.with_chosen",
    (
        lambda rng: skipping.with_chosen(skipping.confidence_threshold(0.3), HIDDEN, CANVAS, IS_MASKED, rng),
        "(3, 5) int64",
    ),
)
inside("fast.time_by_count", (lambda rng: skipping.time_by_count(MDLM, CANVAS), "(3,) float64"))
for name, given in (("most_confident", 1), ("above", 1.0), ("entropy_bounded", 0)):
    inside(
        f"fast.{name}",
        (lambda rng, name=name, given=given: getattr(skipping, name)(given)(HIDDEN, IS_MASKED), "(3, 5) bool"),
    )
for name in ("capped", "rescaled", "standing"):
    inside(f"remasking.{name}", (lambda rng, name=name: getattr(remasking, name)(0.5)(RATE), "float"))
inside("remasking.doubtful", (lambda rng: remasking.confidence_based(1)(RATE), "(3, 5) float64"))
inside("remasking.forward_backward", (lambda rng: remasking.forward_backward()(RATE), "float"))
inside("remasking.looped_times", (lambda rng: remasking.looped_times(1000, 8, 100.0, 2), "(9,) float64"))
inside("remasking.stay_masked", (lambda rng: remasking.stay_masked(0.5, 0.4, U * 0.1), "(3, 5) float64"))
inside(
    "remasking.Remasking", (lambda rng: remasking.Remasking(MDLM, GRID, remasking.capped(1)).legal(RATE), "() float64")
)
inside("blockwise.recompute_suffix", (lambda rng: block_cache.recompute_suffix(1, 2, 5), "[int, int]"))
inside("blockwise.recompute_block", (lambda rng: block_cache.recompute_block(1, 2, 5), "[int, int]"))
inside(
    "blockwise.reuse_error", (lambda rng: block_cache.reuse_error(NET, BLANK, CANVAS, IS_MASKED, 1, 4), "(9,) float64")
)
inside(
    "blockwise.Blockwise", (lambda rng: block_cache.Blockwise(MDLM, 1, skipping.confidence_threshold(0)), "Blockwise")
)
inside(
    "blockwise.Reused",
    (lambda rng: block_cache.CachedDenoiser(NET, 0, L)(BLANK, TIMES, IS_MASKED).softmax(-1), "(9, 8) float32"),
)
for scale in (-2, -1, 0, 0.5, 10):
    inside(
        "guidance.guide",
        (lambda rng, scale=scale: guidance.guide(EXACT, EXACT, scale)(CANVAS, TIMES).exp(), "(3, 5, 8) float64"),
    )
inside(
    "guidance.follow", (lambda rng: guidance.condition_on(LABELLED, 1, 2.0)(CANVAS, TIMES).exp(), "(3, 5, 8) float32")
)
inside(
    "guidance.exact_classifier",
    (lambda rng: guidance.exact_classifier(MICRO, MDLM, "long")(CANVAS, TIMES).exp(), "(3, 5, 8) float64"),
)
inside(
    "guidance.classifier_guided",
    (lambda rng: guidance.classifier_guided(uniform_denoiser, lambda z, t: LOGITS, 1)(X0, TIMES), "(3, 5, 8) float64"),
)
inside("lengths.lengths_before_eos", (lambda rng: variable_length.lengths_before_eos(X0, MICRO.eos_id), "(3,) int64"))
inside(
    "lengths.length_histogram", (lambda rng: variable_length.length_histogram(torch.tensor([0, L]), L), "(6,) float64")
)
inside(
    "lengths.length_probs",
    (lambda rng: variable_length.length_probs(MDLM, EXACT, CANVAS, MICRO.eos_id), "(3, 5) float64"),
)
inside(
    "lengths.canvases_of",
    (lambda rng: variable_length.canvases_of(torch.tensor([0, 4]), L, mask_id=1, eos_id=2, pad_id=0), "(2, 5) int64"),
)
inside("lengths.words_first", (lambda rng: variable_length.words_first([0, 2])(PROBS, rng), "(3, 5) float64"))
inside(
    "lengths.left_to_right_in_blocks",
    (lambda rng: variable_length.left_to_right_in_blocks(2)(PROBS, rng), "(3, 5) float64"),
)
GROW = {"rows": 2, "length": L, "steps": 1, "eos_id": 2, "pad_id": 0}
inside(
    "lengths.grow",
    (
        lambda rng: sample.last_frame(variable_length.grow(BLOCKED, TWIN_BY_BLOCKS, rng=rng, **GROW)).tokens,
        "(2, 5) int64",
    ),
)
inside(
    "latents.exact_log_classifier",
    (
        lambda rng: embedding_guidance.exact_log_classifier(MICRO, SPACE, "long")(SPACE.prior(2, L, rng), TIMES[:2]),
        "(2,) float64",
    ),
)
inside(
    "latents.pushed",
    (
        lambda rng: embedding_guidance.gradient_guided(
            POINTS, MICRO.denoiser(POINTS), embedding_guidance.exact_log_classifier(MICRO, POINTS, "long"), 1
        )(POINTS.prior(2, L, rng), TIMES[1:]),
        "(2, 5, 4) float64",
    ),
)
inside(
    "latents.ReplacementInfilling",
    (lambda rng: embedding_guidance.ReplacementInfilling(SPACE, CANVAS).prior(3, L, rng), "(3, 5, 4) float64"),
)
inside("labels.endings", (lambda rng: conditioning.endings(MICRO, X0), "(3,) int64"))
inside("labels.dropped", (lambda rng: conditioning.dropped(torch.tensor([0, 1]), 1, 2, rng), "(2,) int64"))
inside(
    "labels.Conditioned", (lambda rng: conditioning.Conditioned(LABELLED, 1)(CANVAS, TIMES).exp(), "(3, 5, 8) float32")
)

for steps in (0, -1, 1.5, 1001, NAN):
    outside(
        "sample.denoise_frames",
        (
            lambda rng, steps=steps: next(sample.denoise_frames(MDLM, EXACT, shape=(1, L), steps=steps, rng=rng)),
            str(steps),
        ),
    )
    outside(
        "sample.sample",
        (lambda rng, steps=steps: sample.sample(MDLM, EXACT, shape=(1, L), steps=steps, rng=rng), str(steps)),
        who="denoise_frames",
    )
    outside("fast.even_times", (lambda rng, steps=steps: skipping.even_times(1000, steps), str(steps)))
for shape, shows in (
    ((0, L), "0"),
    ((1, 0), "0"),
    ((-1, L), "-1"),
    ((1.5, L), "1.5"),
    ((L,), "(5,)"),
    ((1, 2, 3), "(1, 2, 3)"),
    (7, "7"),
):
    for process in (MDLM, UNIFORM, SPACE):
        outside(
            "sample.denoise_frames",
            (
                lambda rng, shape=shape, process=process: next(
                    sample.denoise_frames(process, EXACT, shape=shape, steps=2, rng=rng)
                ),
                shows,
            ),
        )
    outside(
        "fast.fast_frames",
        (
            lambda rng, shape=shape: next(
                skipping.fast_frames(skipping.SkipIdle(MDLM, GRID), EXACT, shape=shape, rng=rng)
            ),
            shows,
        ),
    )
for start, shows in (
    (X0[0], "(5,)"),
    (X0.double(), "float64"),
    (IS_MASKED, "bool"),
    (BEYOND, "8"),
    (BELOW, "-1"),
    (NO_TEXT, "0"),
):
    outside(
        "sample.denoise_frames",
        (lambda rng, start=start: next(sample.denoise_frames(MDLM, EXACT, start=start, steps=2, rng=rng)), shows),
    )
    outside(
        "sample.infill",
        (lambda rng, start=start: sample.infill(MDLM, EXACT, start, steps=2, rng=rng), shows),
        who="denoise_frames",
    )
    outside(
        "fast.fast_frames",
        (
            lambda rng, start=start: next(
                skipping.fast_frames(skipping.SkipIdle(MDLM, GRID), EXACT, start=start, rng=rng)
            ),
            shows,
        ),
    )
outside(
    "sample.denoise_frames",
    (lambda rng: next(sample.denoise_frames(MDLM, EXACT, steps=2, rng=rng)), "shape"),
    (lambda rng: next(sample.denoise_frames(MDLM, EXACT, shape=(1, L), start=X0, steps=2, rng=rng)), "start"),
    (
        lambda rng: next(sample.denoise_frames(UNIFORM, EXACT, shape=(1, L), steps=2, rng=rng, order="margin")),
        "'margin'",
    ),
    (lambda rng: next(sample.denoise_frames(POINTS, EXACT, shape=(1, L), steps=2, rng=rng, top_k=2)), "DiffusionLM"),
)
outside(
    "sample.denoise_frames",
    (
        lambda rng: next(sample.denoise_frames(MDLM, EXACT, shape=(1, L), steps=2, rng=rng, order="confident")),
        "'confident'",
    ),
    who="Reveal",
)
outside(
    "sample.denoise_frames",
    (lambda rng: next(sample.denoise_frames(SPACE, EXACT, start=CANVAS, steps=2, rng=rng)), "(3, 5)"),
    who="Plaid",
)
outside(
    "sample.sample", (lambda rng: sample.sample(UNIFORM, EXACT, shape=(1, L), steps=2, rng=None), "NoneType"), who="rng"
)
outside("sample.infill", (lambda rng: sample.infill(UNIFORM, EXACT, CANVAS, steps=2, rng=rng), "MASK"), who="step")
outside("sample.infill", (lambda rng: sample.infill(MDLM, EXACT, CANVAS, steps=2, rng=7), "int"), who="rng")
outside("rules.Reveal", (lambda rng: unmasking.Unmasking(MDLM, "best"), "'best'"))
for value in (-0.1, NAN, INF):
    outside("filters.cooler", (lambda rng, value=value: logits.with_temperature(EXACT, value), str(value)))
for value in (0, -1, 1.5, NAN):
    outside("filters.with_top_k", (lambda rng, value=value: logits.with_top_k(EXACT, value), str(value)))
    outside("fast.most_confident", (lambda rng, value=value: skipping.most_confident(value), str(value)))
for value in (0, -0.1, 1.1, NAN):
    outside("filters.with_top_p", (lambda rng, value=value: logits.with_top_p(EXACT, value), str(value)))
for value in (-0.1, 1.1, NAN):
    outside("fast.above", (lambda rng, value=value: skipping.confidence_threshold(value), str(value)))
outside("filters.filtered", (lambda rng: logits.filtered(EXACT, temperature=-1), "-1"), who="cooler")
outside("filters.filtered", (lambda rng: logits.filtered(EXACT, top_k=0), "0"), who="with_top_k")
outside("filters.filtered", (lambda rng: logits.filtered(EXACT, top_p=0), "0"), who="with_top_p")
outside(
    "sample.sample_many",
    *(
        (lambda rng, n=n: sample.sample_many(MDLM, EXACT, n=n, length=L, steps=2, rng=rng), str(n))
        for n in (0, -1, 1.5)
    ),
)
outside("sample.noising_frames", (lambda rng: [*sample.noising_frames(UNIFORM, X0, [], rng=rng)], "[]"))
outside("sample.noising_frames", (lambda rng: [*sample.noising_frames(UNIFORM, X0, [5, 3], rng=rng)], "5"))
outside("sample.noising_frames", (lambda rng: [*sample.noising_frames(SPACE, X0, [5, 3], rng=rng)], "5"))
outside(
    "sample.canvas_from_text",
    (lambda rng: sample.canvas_from_text("one three ___", WORDS, 5), "'three'"),
    (lambda rng: sample.canvas_from_text("one two ___{9}", WORDS, 5), "9"),
    (lambda rng: sample.canvas_from_text("", WORDS, 0), "0"),
    (lambda rng: sample.canvas_from_text("", WORDS, -1), "-1"),
)
outside(
    "fast.fast_frames", (lambda rng: next(skipping.fast_frames(skipping.SkipIdle(MDLM, GRID), EXACT, rng=rng)), "shape")
)
outside(
    "fast.fast_frames",
    (lambda rng: [*skipping.fast_frames(skipping.SkipIdle(MDLM, GRID), EXACT, shape=(1, L), rng=None)], "NoneType"),
    who="rng",
)
outside(
    "fast.FirstHitting",
    (lambda rng: next(skipping.FirstHitting(MDLM).moves(EXACT, BLANK, None)), "NoneType"),
    who="rng",
)
for times, shows in (
    ([1000.0], "1000"),
    ([1000.0, 1.0], "1.0"),
    ([999.0, 0.0], "999"),
    ([1000.0, 0.0, 0.0], "0.0, 0.0"),
    ([1000.0, NAN, 0.0], "nan"),
    ([[1000.0, 0.0]], "1000"),
    ([], "[]"),
):
    outside("fast.Lazy", (lambda rng, times=times: skipping.SkipIdle(MDLM, torch.tensor(times)), shows))
    outside(
        "fast.check_times",
        (lambda rng, times=times: skipping.check_times(torch.tensor(times), 1000, "grid"), shows),
        who="grid",
    )
outside("remasking.Remasking", (lambda rng: remasking.Remasking(MDLM, GRID.flip(0), remasking.capped(1)), "[0.0"))
outside(
    "fast.entropy_bounded",
    (lambda rng: skipping.entropy_bounded(-0.1), "-0.1"),
    (lambda rng: skipping.entropy_bounded(NAN), "nan"),
)
outside("fast.Remembered", (lambda rng: skipping.NoChangeCache(build_model(MDLM, "pico", time="table")), "time"))
for eta in (-0.1, NAN):
    for rate in (remasking.capped, remasking.rescaled, remasking.loop_only, remasking.confidence_based):
        outside(
            f"remasking.{rate.__name__}",
            (
                lambda rng, rate=rate, eta=eta: [
                    *remasking.Remasking(MDLM, torch.tensor([1000.0, 500.0, 500.0, 0.0]), rate(eta)).moves(
                        EXACT, BLANK, rng
                    )
                ],
                "eta",
            ),
            who="Remasking",
        )
outside(
    "remasking.rescaled",
    (lambda rng: remasking.Remasking(MDLM, GRID, remasking.rescaled(1.1)).legal(RATE), "0.88"),
    who="Remasking",
)
for at, steps, loops in ((0, 8, 2), (1000, 8, 2), (NAN, 8, 2), (500, 2, 2), (500, 8, -1), (500, 8.5, 1)):
    outside(
        "remasking.looped_times", (lambda rng, given=(1000, steps, at, loops): remasking.looped_times(*given), str(at))
    )
outside("blockwise.Blockwise", (lambda rng: block_cache.Blockwise(MDLM, 0, skipping.confidence_threshold(0)), "0"))
outside("blockwise.Blockwise", (lambda rng: block_cache.Blockwise(MDLM, 1.5, skipping.confidence_threshold(0)), "1.5"))
outside("blockwise.Reused", (lambda rng: block_cache.CachedDenoiser(EXACT, 0, L), "plain function"))
for scale in (NAN, INF):
    outside("guidance.guide", (lambda rng, scale=scale: guidance.guide(EXACT, EXACT, scale), str(scale)))
    outside(
        "guidance.classifier_guided",
        (lambda rng, scale=scale: guidance.classifier_guided(EXACT, EXACT, scale), str(scale)),
    )
outside(
    "guidance.follow",
    (lambda rng: guidance.condition_on(NET, 0), "labels"),
    (lambda rng: guidance.condition_on(LABELLED, 2), "2"),
    (lambda rng: guidance.condition_on(LABELLED, -1), "-1"),
    (lambda rng: guidance.condition_on(LABELLED, 0.5), "0.5"),
)
outside(
    "guidance.exact_classifier",
    (lambda rng: guidance.exact_classifier(MICRO, MDLM, "sad"), "'sad'"),
    who="StoryLanguage",
)
outside(
    "latents.exact_log_classifier",
    (lambda rng: embedding_guidance.exact_log_classifier(MICRO, SPACE, "sad"), "'sad'"),
    who="StoryLanguage",
)
outside("latents.pushed", (lambda rng: embedding_guidance.gradient_guided(SPACE, EXACT, EXACT, 1), "Plaid"))
outside("latents.pushed", (lambda rng: embedding_guidance.gradient_guided(POINTS, EXACT, EXACT, NAN), "nan"))
outside(
    "latents.ReplacementInfilling",
    *(
        (lambda rng, start=start: embedding_guidance.ReplacementInfilling(SPACE, start), shows)
        for start, shows in ((X0[0], "(5,)"), (X0.double(), "float64"), (BEYOND, "8"), (BELOW, "-1"))
    ),
)
outside(
    "latents.ReplacementInfilling",
    (lambda rng: embedding_guidance.ReplacementInfilling(SPACE, CANVAS).prior(2, L, rng), "(2, 5)"),
)
for p in (-0.1, 1.1, NAN):
    outside("labels.dropped", (lambda rng, p=p: conditioning.dropped(torch.tensor([0, 1]), p, 2, rng), str(p)))
outside("labels.endings", (lambda rng: conditioning.endings(MICRO, BEYOND), "8"), who="StoryLanguage")
outside("labels.Conditioned", (lambda rng: conditioning.Conditioned(LABELLED, 3)(CANVAS, TIMES), "3"), who="Denoiser")
outside(
    "labels.Conditioned",
    (lambda rng: conditioning.Conditioned(LABELLED, torch.tensor([0, 1]))(CANVAS, TIMES), "(2,)"),
    who="Conditioned",
)
outside(
    "lengths.length_histogram",
    (lambda rng: variable_length.length_histogram(torch.tensor([0, L + 1]), L), "6"),
    (lambda rng: variable_length.length_histogram(torch.tensor([-1]), L), "-1"),
    (lambda rng: variable_length.length_histogram(torch.tensor([1.0]), L), "float32"),
    (lambda rng: variable_length.length_histogram(torch.tensor([1]), L, -1), "-1"),
    (lambda rng: variable_length.length_histogram(torch.tensor([], dtype=torch.int64), L, 0), "0"),
)
outside("lengths.length_probs", (lambda rng: variable_length.length_probs(MDLM, EXACT, CANVAS, V), "8"))
outside("lengths.length_probs", (lambda rng: variable_length.length_probs(MDLM, EXACT, BEYOND, 2), "8"))
outside(
    "lengths.canvases_of",
    *(
        (lambda rng, n=n: variable_length.canvases_of(torch.tensor(n), L, mask_id=1, eos_id=2, pad_id=0), str(n))
        for n in ([L], [-1], [])
    ),
)
outside("lengths.left_to_right_in_blocks", (lambda rng: variable_length.left_to_right_in_blocks(0), "0"))
outside(
    "lengths.grow",
    *(
        (
            lambda rng, change=change: next(variable_length.grow(BLOCKED, TWIN_BY_BLOCKS, rng=rng, **GROW | change)),
            shows,
        )
        for change, shows in (
            ({"rows": 0}, "0"),
            ({"rows": -1}, "-1"),
            ({"length": 0}, "0"),
            ({"length": L + 1}, "6"),
            ({"steps": 0}, "0"),
            ({"steps": 3}, "3"),
            ({"steps": 1.5}, "1.5"),
            ({"prompt": X0}, "(3, 5)"),
            ({"prompt": X0[:2]}, "(2, 5)"),
        )
    ),
)


# --------------------------------------------------------------------------------------------------------- evaluation

inside(
    "infilling.judge_fillings",
    (lambda rng: infilling.judge_fillings(MICRO, CANVAS, X0, X0), "[bool, float, float, float, float]"),
)
inside(
    "infilling.conditional_bounds",
    (lambda rng: infilling.conditional_bounds(MDLM, EXACT, X0, IS_MASKED, rng=rng), "(3,) float64"),
)
inside(
    "infilling.conditional_gap",
    (lambda rng: infilling.conditional_gap(MDLM, EXACT, MICRO, X0, IS_MASKED, rng=rng), "[float, float]"),
)
inside("evaluate.mean_of", (lambda rng: bounds.mean_of(TIMES), "[float, float]"))
inside(
    "evaluate.sequence_bounds",
    *(
        (
            lambda rng, it=it: bounds.sequence_bounds(it, MICRO.denoiser(it), X0, rng=rng, draws=1, batch_size=2),
            "(3,) float64",
        )
        for it in PROCESSES.values()
    ),
)
inside("evaluate.nelbo", (lambda rng: bounds.nelbo(MDLM, EXACT, X0, rng=rng), "[float, float]"))
inside(
    "evaluate.paired_gap",
    (lambda rng: bounds.paired_gap(lambda who, masks: TIMES, EXACT, EXACT, seed=0), "[float, float]"),
)
inside(
    "evaluate.gap_to_entropy",
    (lambda rng: bounds.gap_to_entropy(MDLM, EXACT, MICRO, 2, rng=rng, draws=1), "[float, float]"),
)
inside(
    "evaluate.order_bounds",
    (lambda rng: bounds.order_bounds(MDLM, EXACT, X0, torch.arange(L).repeat(B, 1)), "(3,) float64"),
)
inside(
    "evaluate.error_by_count",
    (lambda rng: bounds.error_by_count(MDLM, EXACT, MICRO, counts=[1, L], n=2, rng=rng)[1].model, "float"),
)
inside("evaluate.mask_patterns", (lambda rng: bounds.mask_patterns(1), "(2, 1) bool"))
inside("evaluate.pattern_losses", (lambda rng: bounds.pattern_losses(MDLM, EXACT, X0), "(3, 32) float64"))
inside("evaluate.pattern_chances", (lambda rng: bounds.pattern_chances(LINEAR, TIMES, L), "(3, 32) float64"))
inside("evaluate.plots_of", (lambda rng: bounds.plots_of(MICRO, CANVAS), "(3,) int64"))
inside("evaluate.quality", (lambda rng: bounds.quality(MICRO, X0), "[float, float, float, float, float, float]"))
inside("evaluate.chance_of_counts", (lambda rng: bounds.chance_of_counts(MICRO.template_probs, 0)[0], "(1,) float64"))
inside(
    "evaluate.kl_of_counts",
    (lambda rng: bounds.kl_of_counts(torch.tensor([3, 1]), torch.tensor([0.5, 0.5])), "float"),
)
inside("evaluate.kl_floor", (lambda rng: bounds.kl_floor(torch.tensor([0.5, 0.5]), 1), "float"))
inside("evaluate.plot_kl_floor", (lambda rng: bounds.plot_kl_floor(MICRO, 1), "float"))
inside("evaluate.wilson", (lambda rng: bounds.wilson(0, 1), "[float, float]"))
EOS = {"eos_id": MICRO.eos_id}
inside("metrics.until_end", (lambda rng: len(samples.until_end(X0, 2)), "int"))
inside("metrics.distinct_n", (lambda rng: samples.distinct_n(X0, 2, **EOS), "float"))
inside("metrics.token_entropy", (lambda rng: samples.token_entropy(X0, **EOS), "float"))
inside("metrics.token_entropy", (lambda rng: samples.token_entropy(torch.full((1, 2), 2), **EOS), "float"))
inside("metrics.entropy_within", (lambda rng: samples.entropy_within([]), "float"))
inside("metrics.self_bleu", (lambda rng: samples.self_bleu(X0, **EOS), "float"))
inside("metrics.repeated_sentences", (lambda rng: samples.repeated_sentences(X0, stop_id=4, **EOS), "float"))
inside("metrics.seen_windows", (lambda rng: samples.seen_windows(X0, X0.flatten(), L), "float"))
inside("metrics.copied", (lambda rng: samples.copied(X0, TEXTS[:4], MICRO), "[float, float, float]"))
inside(
    "metrics.distance",
    (lambda rng: samples.distance(torch.tensor([1, 0]), torch.tensor([0.5, 0.5])), "[float, float, float, float]"),
)
inside("metrics.marginals", (lambda rng: samples.marginals(MICRO, X0)["plot"].kl, "float"))
inside("metrics.pair_distance", (lambda rng: samples.pair_distance(MICRO, X0, "Mia", "ran").kl, "float"))
inside("scaling.recipe", (lambda rng: scaling.recipe(POINT), "TrainConfig"))
inside(
    "scaling.build_point",
    (lambda rng: scaling.build_point(POINT, MICRO)(CANVAS, TIMES).softmax(-1), "(3, 5, 8) float32"),
)
inside(
    "scaling.exact_on_prefixes",
    (lambda rng: scaling.exact_on_prefixes(MICRO, NET, 3)(X0[:, :3], TIMES).exp(), "(3, 3, 8) float64"),
)
inside("scaling.size_of", (lambda rng: scaling.size_of(NET), "[int, int]"))
inside("scaling.power_law", (lambda rng: scaling.power_law([1, 2, 4, 8], [8, 4, 2, 1.1]).factor, "float"))
inside("scaling.frontier", (lambda rng: scaling.frontier([1, 2], [2.0, 1.0]), "[int, int]"))
inside("scaling.Prefixes", (lambda rng: next(scaling.Prefixes(MICRO, POINT._replace(stories=9), 0)), "(64, 5) int64"))
inside(
    "leaderboard.likelihood",
    (lambda rng: leaderboard.likelihood(MDLM, EXACT, MICRO, 2, seed=0, draws=1).gap, "[float, float]"),
)
inside("leaderboard.ways_of", (lambda rng: leaderboard.ways_of(SPACE), "[str, str]"))
inside("leaderboard.steps_of", (lambda rng: leaderboard.steps_of(MDLM, 48), "[int, int, int, int]"))
inside(
    "leaderboard.texts",
    (lambda rng: leaderboard.texts(MDLM, EXACT, "random", n=2, L=L, steps=2, rng=rng), "(2, 5) int64"),
)
inside(
    "leaderboard.judged",
    (lambda rng: leaderboard.judged("exact", MDLM, EXACT, MICRO, way="random", steps=2, n=2, seed=0).valid, "float"),
)
inside("leaderboard.read_board", (lambda rng: leaderboard.read_board(ABSENT), "[{}, []]"))
inside("leaderboard.as_json", (lambda rng: leaderboard.as_json(leaderboard.Board({}, [])), "str"))
inside("leaderboard.columns", (lambda rng: leaderboard.columns(["a", "b"], [["c", "d"]]), "str"))
inside("leaderboard.by_likelihood", (lambda rng: leaderboard.by_likelihood([]), "str"))
inside("leaderboard.by_samples", (lambda rng: leaderboard.by_samples([]), "str"))
PLAN = parallel_cost.evenly(unmasking.confidence)
inside("reveal.evenly", (lambda rng: PLAN(PROBS, IS_MASKED, 2), "(3, 5) bool"))
inside("reveal.shipped", (lambda rng: parallel_cost.shipped_folder()["margin"](PROBS, IS_MASKED, 2), "(3, 5) bool"))
inside("reveal.checked", (lambda rng: parallel_cost.checked(IS_MASKED, IS_MASKED), "(3, 5) bool"))
inside(
    "reveal.reveal_steps", (lambda rng: [*parallel_cost.reveal_steps(MDLM, EXACT, X0, PLAN, 1)][0].nats, "(3,) float64")
)
inside("reveal.sampler_nats", (lambda rng: parallel_cost.sampler_nats(MDLM, EXACT, X0, PLAN, 2), "(3,) float64"))
inside("reveal.true_stories", (lambda rng: parallel_cost.true_stories(MICRO, 2, 0), "(2, 5) int64"))
inside("reveal.excess_nats", (lambda rng: parallel_cost.excess_nats(PLAN, MICRO, steps=2, n=2), "(2,) float64"))
inside("reveal.score_order", (lambda rng: parallel_cost.score_order("margin", MICRO, steps=2, n=2), "[float, float]"))
inside("reveal.order_board", (lambda rng: parallel_cost.order_board({}, MICRO, steps=(1,), n=2).steps, "[int]"))

for given, shows in ((X0[:1], "(1, 5)"), (X0[:, :4], "(3, 4)")):
    outside(
        "infilling.judge_fillings",
        (lambda rng, given=given: infilling.judge_fillings(MICRO, CANVAS, given, X0), shows),
        (lambda rng, given=given: infilling.judge_fillings(MICRO, CANVAS, X0, given), shows),
    )
    outside(
        "infilling.conditional_bounds",
        (lambda rng, given=given: infilling.conditional_bounds(MDLM, EXACT, X0, given == 0, rng=rng), shows),
    )
outside(
    "infilling.judge_fillings",
    (lambda rng: infilling.judge_fillings(MICRO, NO_TEXT, NO_TEXT, NO_TEXT), "(0, 5)"),
    (lambda rng: infilling.judge_fillings(MICRO, X0, X0, X0), "MASK"),
)
outside(
    "infilling.conditional_bounds",
    (lambda rng: infilling.conditional_bounds(MDLM, EXACT, X0, X0 < 0, rng=rng), "row 0"),
    (lambda rng: infilling.conditional_bounds(MDLM, EXACT, X0, X0, rng=rng), "int64"),
    (lambda rng: infilling.conditional_bounds(MDLM, EXACT, X0, IS_MASKED, rng=rng, draws=0), "0"),
    (lambda rng: infilling.conditional_bounds(MDLM, EXACT, BEYOND, IS_MASKED, rng=rng), "8"),
)
outside(
    "infilling.conditional_gap",
    (lambda rng: infilling.conditional_gap(MDLM, EXACT, MICRO, X0, IS_MASKED, rng=None), "NoneType"),
    who="rng",
)
outside("evaluate.mean_of", (lambda rng: bounds.mean_of(TIMES[:0]), "(0,)"), (lambda rng: bounds.mean_of(U), "(3, 5)"))
outside("evaluate.nelbo", (lambda rng: bounds.nelbo(MDLM, EXACT, NO_TEXT, rng=rng), "no sequences"))
for given, shows in ((BEYOND, "8"), (BELOW, "-1"), (X0[0], "(5,)"), (X0.double(), "float64"), (CANVAS, "MASK")):
    for process in (MDLM, UNIFORM, SPACE):
        outside(
            "evaluate.nelbo",
            (
                lambda rng, given=given, process=process: bounds.nelbo(process, lambda z, t: LOGITS, given, rng=rng),
                shows,
            ),
            who="sequence_bounds",
        )
outside(
    "evaluate.sequence_bounds",
    (lambda rng: bounds.sequence_bounds(MDLM, EXACT, X0, rng=rng, draws=0), "0"),
    (lambda rng: bounds.sequence_bounds(MDLM, EXACT, X0, rng=rng, draws=-1), "-1"),
    (lambda rng: bounds.sequence_bounds(MDLM, EXACT, X0, rng=rng, batch_size=0), "0"),
    (lambda rng: bounds.sequence_bounds(MDLM, EXACT, NO_TEXT, rng=rng), "(0, 5)"),
)
outside("evaluate.sequence_bounds", (lambda rng: bounds.sequence_bounds(MDLM, EXACT, X0, rng=0), "int"), who="rng")
outside(
    "evaluate.gap_to_entropy",
    (lambda rng: bounds.gap_to_entropy(MDLM, EXACT, MICRO, 0, rng=rng), "0"),
    who="(sequence_bounds|gap_to_entropy)",
)
outside(
    "evaluate.gap_to_entropy",
    (lambda rng: bounds.gap_to_entropy(MDLM, EXACT, MICRO, -1, rng=rng), "-1"),
    who="StoryLanguage",
)
outside(
    "evaluate.order_bounds",
    (lambda rng: bounds.order_bounds(MDLM, EXACT, X0, torch.zeros(B, L).long()), "(3, 5)"),
    (lambda rng: bounds.order_bounds(MDLM, EXACT, X0, torch.arange(L)), "(3, 5)"),
    (lambda rng: bounds.order_bounds(MDLM, EXACT, BEYOND, torch.arange(L).repeat(B, 1)), "8"),
)
outside(
    "evaluate.error_by_count",
    *(
        (lambda rng, count=count: bounds.error_by_count(MDLM, EXACT, MICRO, counts=[count], n=2, rng=rng), str(count))
        for count in (0, -1, L + 1)
    ),
)
outside(
    "evaluate.error_by_count", (lambda rng: bounds.error_by_count(MDLM, EXACT, MICRO, counts=[1], n=0, rng=rng), "0")
)
outside("evaluate.mask_patterns", *((lambda rng, n=n: bounds.mask_patterns(n), str(n)) for n in (0, -1, 13, 1.5)))
outside(
    "evaluate.pattern_losses",
    (lambda rng: bounds.pattern_losses(MDLM, EXACT, torch.zeros(1, 13).long()), "13"),
    who="mask_patterns",
)
outside("evaluate.pattern_losses", (lambda rng: bounds.pattern_losses(MDLM, EXACT, BEYOND), "8"))
outside(
    "evaluate.pattern_chances",
    (lambda rng: bounds.pattern_chances(LINEAR, TIMES + 1, L), "1001"),
    who="linear schedule",
)
outside("evaluate.plots_of", (lambda rng: bounds.plots_of(MICRO, BEYOND), "8"), who="StoryLanguage")
outside("evaluate.quality", (lambda rng: bounds.quality(MICRO, NO_TEXT), "(0, 5)"))
outside("evaluate.quality", (lambda rng: bounds.quality(MICRO, BEYOND), "8"), who="StoryLanguage")
outside("evaluate.quality", (lambda rng: bounds.quality(MICRO, X0[:, :4]), "(3, 4)"), who="StoryLanguage")
outside(
    "evaluate.kl_of_counts",
    (lambda rng: bounds.kl_of_counts(torch.tensor([3, 1, 1]), torch.tensor([0.5, 0.5])), "(3,)"),
)
outside("evaluate.kl_of_counts", (lambda rng: bounds.kl_of_counts(torch.tensor([3]), torch.tensor([0.5, 0.5])), "(1,)"))
outside(
    "evaluate.kl_floor", *((lambda rng, n=n: bounds.kl_floor(torch.tensor([0.5, 0.5]), n), str(n)) for n in (0, -1))
)
outside(
    "evaluate.wilson",
    *((lambda rng, given=given: bounds.wilson(*given), str(given[0])) for given in ((1, 0), (2, 1), (-1, 3), (NAN, 3))),
)
outside(
    "metrics.distinct_n",
    (lambda rng: samples.distinct_n(X0, 0, **EOS), "0"),
    (lambda rng: samples.distinct_n(X0, -1, **EOS), "-1"),
)
outside("metrics.token_entropy", (lambda rng: samples.token_entropy(NO_TEXT, **EOS), "(0, 5)"), who="until_end")
outside(
    "metrics.repeated_sentences",
    (lambda rng: samples.repeated_sentences(NO_TEXT, stop_id=4, **EOS), "(0, 5)"),
    who="until_end",
)
outside("metrics.self_bleu", (lambda rng: samples.self_bleu(X0[:1], **EOS), "1"))
outside("metrics.until_end", (lambda rng: samples.until_end(X0[0], 2), "(5,)"))
outside("metrics.distinct_n", (lambda rng: samples.distinct_n(X0[0], 2, **EOS), "(5,)"), who="until_end")
outside(
    "metrics.seen_windows",
    *((lambda rng, n=n: samples.seen_windows(X0, X0.flatten(), n), str(n)) for n in (0, -1, L + 1)),
)
outside("metrics.seen_windows", (lambda rng: samples.seen_windows(NO_TEXT, X0.flatten(), 2), "(0, 5)"))
outside("metrics.copied", (lambda rng: samples.copied(NO_TEXT, X0, MICRO), "(0, 5)"))
outside("metrics.copied", (lambda rng: samples.copied(X0, X0[:, :4], MICRO), "(3, 4)"))
outside("metrics.distance", (lambda rng: samples.distance(torch.tensor([0, 0]), torch.tensor([0.5, 0.5])), "0 samples"))
outside("metrics.distance", (lambda rng: samples.distance(torch.tensor([1]), torch.tensor([0.5, 0.5])), "(1,)"))
outside("metrics.marginals", (lambda rng: samples.marginals(MICRO, BLANK), "no sample"))
outside("metrics.pair_distance", (lambda rng: samples.pair_distance(MICRO, X0, "hero", "ran"), "'hero'"))
outside(
    "metrics.pair_distance",
    (lambda rng: samples.pair_distance(MICRO, BLANK, "Mia", "ran"), "0 samples"),
    who="distance",
)
outside("scaling.build_point", (lambda rng: scaling.build_point(POINT._replace(process="sedd"), MICRO), "'sedd'"))
outside("scaling.build_point", (lambda rng: scaling.build_point(POINT._replace(width=8), MICRO), "8"))
outside("scaling.recipe", (lambda rng: scaling.recipe(POINT._replace(process="sedd")), "'sedd'"))
for x, y, shows in (
    ([1, 2], [1, 2], "[1, 2]"),
    ([1, 2, 3], [1, 2], "[1, 2, 3]"),
    ([1, 2, 0], [1, 2, 3], "0"),
    ([1, 2, 3], [1, NAN, 3], "nan"),
    ([1, 2, INF], [1, 2, 3], "inf"),
    ([2, 2, 2], [1, 2, 3], "[2, 2, 2]"),
):
    outside("scaling.power_law", (lambda rng, given=(x, y): scaling.power_law(*given), shows))
outside(
    "scaling.frontier",
    (lambda rng: scaling.frontier([1, 2, 3], [1.0]), "3"),
    (lambda rng: scaling.frontier([1], [1.0, 2.0]), "2"),
)
outside(
    "leaderboard.likelihood",
    (lambda rng: leaderboard.likelihood(MDLM, EXACT, MICRO, 0, seed=0), "(0, 5)"),
    who="sequence_bounds",
)
outside("leaderboard.texts", (lambda rng: leaderboard.texts(MDLM, EXACT, "ddpm", n=2, L=L, steps=2, rng=rng), "'ddpm'"))
outside("leaderboard.texts", (lambda rng: leaderboard.texts(SPACE, EXACT, "dpm", n=2, L=L, steps=2, rng=rng), "'dpm'"))
outside(
    "leaderboard.texts",
    (lambda rng: leaderboard.texts(MDLM, EXACT, "random", n=0, L=L, steps=2, rng=rng), "0"),
    who="sample_many",
)
outside(
    "leaderboard.judged",
    (lambda rng: leaderboard.judged("exact", MDLM, EXACT, MICRO, way="best", steps=2, n=2, seed=0), "'best'"),
    who="texts",
)
outside("leaderboard.by_samples", (lambda rng: leaderboard.by_samples([], "validity"), "'validity'"))
outside(
    "reveal.evenly",
    (lambda rng: parallel_cost.evenly(lambda p, r: p)(PROBS, IS_MASKED, 2), "(3, 5, 8)"),
    who="the score.*",
)
outside(
    "reveal.evenly",
    (lambda rng: parallel_cost.evenly(lambda p, r: U * NAN)(PROBS, IS_MASKED, 2), "NaN"),
    who="the score.*",
)
outside("reveal.checked", (lambda rng: parallel_cost.checked(X0, IS_MASKED), "int64"), who="the plan.*")
outside("reveal.checked", (lambda rng: parallel_cost.checked(~IS_MASKED, IS_MASKED), "place"), who="place .*")
for steps in (0, -1, 1.5, NAN):
    outside(
        "reveal.reveal_steps",
        (lambda rng, steps=steps: next(parallel_cost.reveal_steps(MDLM, EXACT, X0, PLAN, steps)), str(steps)),
    )
    outside(
        "reveal.sampler_nats",
        (lambda rng, steps=steps: parallel_cost.sampler_nats(MDLM, EXACT, X0, PLAN, steps), str(steps)),
        who="reveal_steps",
    )
outside("reveal.score_order", (lambda rng: parallel_cost.score_order("best", MICRO), "'best'"))
outside("reveal.score_order", (lambda rng: parallel_cost.score_order(PLAN, MICRO, n=0), "0"), who="posterior")
outside(
    "reveal.order_board", (lambda rng: parallel_cost.order_board({}, MICRO, steps=(0,), n=2), "0"), who="reveal_steps"
)
outside("reveal.order_board", (lambda rng: parallel_cost.order_board({}, MICRO, steps=(), n=2), "()"))


# ------------------------------------------------------------------------------------------------------ judge and disk

outside("judge.generative_perplexity", (lambda rng: judge.generative_perplexity([], NET, WORDS), "empty"))
outside("judge.generative_perplexity", (lambda rng: judge.generative_perplexity("one text", NET, WORDS), "one text"))
outside("checkpoint.load_checkpoint", (lambda rng: load_checkpoint(ABSENT), "no-such-folder"))
outside(
    "checkpoint.drop_checkpoints",
    (lambda rng: drop_checkpoints(ABSENT, 0), "0"),
    (lambda rng: drop_checkpoints(ABSENT, -1), "-1"),
)


# -------------------------------------------------------------------------------------- public, and not in both tables

ROOMS = (  # records and protocols, which only name their parts, do not count
    "language tokenizer data chunks corpus noise draws diffusion transitions d3pm sedd wordvectors gaussian "
    "model objectives recipe rules filters sample fast remasking blockwise guidance lengths infilling evaluate metrics "
    "judge scaling leaderboard reveal latents labels checkpoint"
).split()
ELSEWHERE = {  # reason: functions in neither table
    "files, with real faults, in test_checkpoint.py and test_faults.py": [
        "checkpoint.check_writable", "checkpoint.checkpoints", "checkpoint.claimed", "checkpoint.latest_checkpoint",
        "checkpoint.optimizer_state", "checkpoint.restore_optimizers", "checkpoint.save_checkpoint",
        "checkpoint.atomic_files", "checkpoint.atomic_folder", "checkpoint.write_atomic",
    ],
    "checks, whose refusals are asked for at the doors that call them": [
        "draws.checked_seed", "evaluate.check_texts", "objectives.check_objective", "recipe.refuse_null",
        "sample.check_canvas", "scaling.check_process",
    ],
    "curves of get_schedule, which checks their parameters": [
        "noise.geometric", "noise.loglinear", "noise.polynomial", "noise.vp_linear",
    ],
    "a state that is put back, in test_model.py and test_sample.py": ["model.quiet", "sample.evaluating"],
    "bases and parts, tried in what is made of them": [
        "blockwise.StaleCache", "chunks.Cut", "chunks.Encode", "diffusion.Process", "draws.SharedGenerator",
        "model.DiffusionConfig", "reveal.InvalidOrder",
        "transitions.TransitionProcess",
    ],
    "seconds, in test_judge.py, test_scaling.py and test_leaderboard.py": [
        "judge.load_judge", "leaderboard.seconds_a_text", "scaling.judge_point",
    ],
}  # fmt: skip
ONLY_OUTSIDE = {
    "inside it reads and writes files: test_corpus.py, test_data.py, test_checkpoint.py, test_tokenizer.py": [
        "checkpoint.drop_checkpoints", "checkpoint.load_checkpoint", "chunks.tokenize_corpus", "corpus.load_corpus",
        "model.start_from", "tokenizer.load_tokenizer",
    ],
    "inside it needs a judge: test_judge.py": ["judge.generative_perplexity"],
}  # fmt: skip
ONLY_INSIDE = {
    "every input of its type has an answer": [
        "corpus.seed_from", "evaluate.plot_kl_floor", "fast.Counted", "fast.takes_time", "leaderboard.read_board",
        "leaderboard.steps_of", "leaderboard.ways_of", "lengths.lengths_before_eos", "metrics.entropy_within",
        "model.model_folder", "objectives.pooled", "reveal.shipped",
    ],
    "between our own lines: its caller has checked": [
        "blockwise.recompute_block", "blockwise.reuse_error", "blockwise.recompute_suffix", "diffusion.subs_log_probs",
        "diffusion.beside", "diffusion.masked_nll", "diffusion.logits_at", "diffusion.network_of",
        "diffusion.without_mask", "draws.highest", "evaluate.chance_of_counts", "evaluate.paired_gap", "fast.Parallel",
        "fast.probs_at", "fast.expected_calls", "fast.logits_of_rows", "fast.revealed", "fast.scores",
        "fast.time_by_count", "fast.with_chosen", "fast.token_probs", "leaderboard.as_json",
        "leaderboard.by_likelihood", "leaderboard.columns", "lengths.words_first", "remasking.forward_backward",
        "remasking.stay_masked", "rules.confidence", "rules.entropy", "sample.last_frame", "rules.left_to_right",
        "rules.margin", "rules.random_order", "rules.rounded", "filters.exclude_mask", "scaling.Prefixes",
        "scaling.exact_on_prefixes", "scaling.size_of", "sedd.euler", "sedd.leap", "sedd.tweedie",
        "transitions.uniform_over_tokens", "transitions.divergence", "transitions.point_mass_at_mask", "transitions.leave_one_out",
        "wordvectors.ddim", "wordvectors.ddpm", "wordvectors.renoise",
    ],
    "its arguments meet the doors of corrupt, get_schedule, get_transitions or StoryLanguage": [
        "corpus.split_documents", "noise.schedule_from", "noise.schedule_settings", "objectives.bound",
        "objectives.count_bound", "objectives.count_cross_entropy", "objectives.cross_entropy",
        "objectives.end_to_end", "objectives.hybrid", "objectives.likelihood", "objectives.score_entropy",
        "objectives.sequence_mean", "reveal.excess_nats", "reveal.true_stories", "transitions.transition_settings",
        "transitions.transitions_from",
    ],
}  # fmt: skip
