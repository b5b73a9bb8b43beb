"""lm-eval asks our models: the truth where the language is known, and a tiny task of its own, offline."""

import json

import pytest
import torch
from toys import DERIVATIONS, MASK, MICRO, L, V, masked_diffusion

from diffkit.evaluation.harness import HarnessModel
from diffkit.model import build_model
from diffkit.processes.autoregressive import Autoregressive
from diffkit.processes.block import BlockDiffusion

lm_eval = pytest.importorskip("lm_eval")
from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

PROCESSES = {
    "mdlm": masked_diffusion(),
    "block": BlockDiffusion(V, MASK, block=2),
    "autoregressive": Autoregressive(V, MASK),
}


@pytest.fixture(scope="module", params=PROCESSES)
def folder(request, tmp_path_factory):
    """A small random model of `micro`, as a folder."""
    torch.manual_seed(0)
    place = tmp_path_factory.mktemp(request.param)
    build_model(PROCESSES[request.param], "pico", max_length=L).save_pretrained(place)
    MICRO.tokenizer.save_pretrained(place)
    return str(place)


def judge(folder, **settings):
    """The model with the truth in the place of its network."""
    model = HarnessModel(folder, **settings)
    model.denoise = MICRO.denoiser(model.process)
    return model


def ask(model, kind, *arguments):
    """The answers of a method to many requests."""
    return getattr(model, kind)([Instance(kind, {}, each, i) for i, each in enumerate(arguments)])


def text(words):
    return MICRO.tokenizer.decode(MICRO.tokenizer.convert_tokens_to_ids(list(words)))


def log_prob(words):
    """Exact log-probability that a story starts with these words."""
    fits = [prob for story, prob, *_ in DERIVATIONS if story[: len(words)] == tuple(words)]
    return torch.tensor(fits, dtype=torch.float64).sum().log().item()


STORIES = sorted({words for words, *_ in DERIVATIONS if len(words) == 4})[:3]


def of_seeds(folder, kind, arguments):
    """(seeds, requests) answers, and six standard errors of their mean: nothing where the likelihood is exact."""
    model, found = judge(folder, draws=64), []
    for model.seed in range(12):
        found.append(ask(model, kind, *arguments))
    nats = torch.tensor([[each if isinstance(each, float) else each[0] for each in row] for row in found])
    return nats.double().mean(0).tolist(), 6.5 * nats.std(0).max().item() / 12**0.5 + 1e-6


def test_a_perfect_denoiser_gives_the_true_conditional_likelihood(folder):
    pairs = [(text(words[:1]), " " + text(words[1:])) for words in STORIES]
    mean, error = of_seeds(folder, "loglikelihood", pairs)
    assert mean == pytest.approx([log_prob(words) - log_prob(words[:1]) for words in STORIES], abs=error)
    assert error < 0.2 and ("autoregressive" in folder) == (error < 2e-6)


def test_a_perfect_denoiser_gives_the_true_likelihood_of_whole_texts(folder):
    """Nothing is given and EOS is not counted: an empty context asks for the same."""
    whole = [text(words) for words in STORIES]
    mean, error = of_seeds(folder, "loglikelihood_rolling", [(each,) for each in whole])
    assert mean == pytest.approx([log_prob(words) for words in STORIES], abs=error)
    model = judge(folder)
    assert ask(model, "loglikelihood", ("", whole[0]))[0][0] <= 0


def test_greedy_is_what_is_written_without_drawing(folder):
    model = judge(folder)
    model.order = "left_to_right" if model.process.any_order else "ancestral"
    (written,) = ask(model, "generate_until", ("Mia", {"max_gen_toks": 3}))
    others = {text(words[1:]) for words, *_ in DERIVATIONS if words[0] == "Mia"} - {written}
    answers = ask(model, "loglikelihood", *(("Mia", f" {words}") for words in [written, *others]))
    greedy = [words for words, (_, greedy) in zip([written, *others], answers, strict=True) if greedy]
    assert greedy[0] == written and all(written.startswith(words) for words in greedy), "and its first words"


def test_a_model_that_writes_from_left_to_right_stops_where_it_may(folder):
    model, calls = HarnessModel(folder), []
    network = model.denoise
    model.denoise = lambda zt, t, **more: calls.append(1) or network(zt, t, **more)
    (whole,), n = ask(model, "generate_until", ("Mia", {})), len(calls)
    assert whole.startswith(ask(model, "generate_until", ("Mia", {"max_gen_toks": 2}))[0])
    assert len(calls) - n == (2 if "autoregressive" in folder else n)


def test_no_answer_depends_on_what_else_was_asked(folder):
    model, pairs = HarnessModel(folder), [("Mia", " ran"), ("Mia", " hid"), ("Tom", " ran")]
    together = ask(model, "loglikelihood", *pairs)
    assert together == [ask(model, "loglikelihood", pair)[0] for pair in pairs]
    assert ask(HarnessModel(folder, batch_size=3), "loglikelihood", pairs[2])[0][0] == pytest.approx(together[2][0])


def test_a_long_text_is_cut_into_windows_that_count_each_token_once(folder):
    """A model that finds all tokens alike says how many were counted."""
    model = HarnessModel(folder)
    model.denoise = lambda zt, t: torch.zeros(len(zt), L, V)
    for words in (1, L, L + 2, 3 * L):
        (nats,) = ask(model, "loglikelihood_rolling", (" ".join(["ran"] * words),))
        assert nats == pytest.approx(-words * torch.tensor(V - 1.0).log().item(), rel=1e-5)


def test_what_does_not_fit_is_cut_or_refused(folder):
    model = HarnessModel(folder, device="cuda:0", batch_size="auto")  # as the command line of lm-eval may ask
    long = " ".join(["ran"] * 2 * L)
    assert ask(model, "loglikelihood", (long, " hid"))[0][0] < 0
    assert ask(model, "generate_until", (long, {"until": "ran", "do_sample": True, "temperature": 0.5}))
    assert ask(model, "loglikelihood", ("Mia", ""))[0] == (0.0, True)
    with pytest.raises(ValueError, match="canvas"):
        ask(model, "loglikelihood", ("Mia", long))


def test_a_process_without_masks_is_refused():
    with pytest.raises(ValueError, match="the processes are"):
        HarnessModel("pico-udlm")


TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{validation: {file}}}}}
validation_split: validation
output_type: {kind}
doc_to_text: "{{{{context}}}}"
"""
CHOICES = """
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
WHOLE = """
doc_to_target: "{{whole}}"
metric_list: [{metric: word_perplexity}]
"""
WRITTEN = """
doc_to_target: "{{choices[answer]}}"
generation_kwargs: {until: ["Tom"], max_gen_toks: 3}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""
KINDS = {"multiple_choice": CHOICES, "loglikelihood_rolling": WHOLE, "generate_until": WRITTEN}


@pytest.fixture
def tasks(tmp_path, own_caches):
    """Three tasks on eight stories of `micro`, which of two ends is the true one, as a file of lines and YAML."""
    rows = []
    for words, *_ in DERIVATIONS[:8]:
        ends = [text(words[1:]), "Mia Mia"]
        rows.append({"context": words[0], "choices": ends, "answer": 0, "whole": text(words)})
    (tmp_path / "rows.json").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    for kind, rest in KINDS.items():
        task = TASK.format(name=f"micro_{kind}", file=tmp_path / "rows.json", kind=kind) + rest
        (tmp_path / f"{kind}.yaml").write_text(task, encoding="utf-8")
    return TaskManager(include_path=str(tmp_path), include_defaults=False)


@pytest.mark.filterwarnings("default")
@pytest.mark.slow
@pytest.mark.parametrize("folder", ["mdlm", "autoregressive"], indirect=True)
def test_lm_eval_runs_a_task_of_its_own(folder, tasks):
    """By its name, as from the command line; then with the truth, which is never wrong."""
    how = {"tasks": [f"micro_{kind}" for kind in KINDS], "task_manager": tasks, "bootstrap_iters": 0}
    found = lm_eval.simple_evaluate("diffkit", f"pretrained={folder},draws=8", **how)["results"]
    true = lm_eval.simple_evaluate(judge(folder), **how)["results"]
    assert 0 <= found["micro_multiple_choice"]["acc,none"] <= true["micro_multiple_choice"]["acc,none"] == 1
    perplexities = [each["micro_loglikelihood_rolling"]["word_perplexity,none"] for each in (found, true)]
    assert perplexities[0] > perplexities[1] > 1
    assert 0 <= found["micro_generate_until"]["exact_match,none"] <= 1
