"""Generative perplexity under any causal language model of transformers, against a loop written out by hand."""

import math

import pytest
import torch
from toys import TALES, generator
from transformers import GPT2Config, GPT2LMHeadModel

from diffkit.evaluation.judge import generative_perplexity, load_judge
from diffkit.model import quiet

TEXTS = TALES.decode(TALES.sample(3, generator()))


@pytest.fixture(scope="module")
def judge():
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(TALES.tokenizer), n_positions=64, n_embd=16, n_layer=1, n_head=2)
    return GPT2LMHeadModel(config).eval()


def by_hand(judge, texts, first=None):
    """Every token asked for alone, after the whole text before it."""
    nats, count = 0.0, 0
    for text in texts:
        ids = ([] if first is None else [first]) + TALES.tokenizer(text, add_special_tokens=False)["input_ids"]
        for i in range(1, len(ids)):
            with torch.no_grad():
                logits = judge(torch.tensor([ids[:i]])).logits[0, -1].double()
            nats -= logits.log_softmax(0)[ids[i]].item()
            count += 1
    return math.exp(nats / count), count


def test_the_perplexity_is_that_of_a_loop_over_tokens(judge):
    found = generative_perplexity(TEXTS, judge, TALES.tokenizer)
    want, count = by_hand(judge, TEXTS)
    assert found.perplexity == pytest.approx(want, rel=1e-5) and found.tokens == count


def test_a_first_token_is_predicted_where_the_tokenizer_has_one(judge):
    tokenizer = TALES.tokenizer.__class__.from_pretrained("data/pretrained/tales-mdlm")
    tokenizer.bos_token = "[EOS]"
    found = generative_perplexity(TEXTS, judge, tokenizer)
    want, count = by_hand(judge, TEXTS, first=tokenizer.bos_token_id)
    assert found.perplexity == pytest.approx(want, rel=1e-5) and found.tokens == count


def test_a_text_that_repeats_itself_has_a_low_entropy(judge):
    assert generative_perplexity(["Mia Mia Mia Mia"], judge, TALES.tokenizer).entropy == 0
    assert generative_perplexity(["Mia Tom Mia Tom"], judge, TALES.tokenizer).entropy == pytest.approx(math.log(2))


def test_a_judge_is_loaded_from_a_folder(judge, tmp_path):
    with quiet():
        judge.save_pretrained(tmp_path)
        TALES.tokenizer.save_pretrained(tmp_path)
        again, tokenizer = load_judge(str(tmp_path))
    assert generative_perplexity(TEXTS, again, tokenizer) == generative_perplexity(TEXTS, judge, TALES.tokenizer)


def test_nothing_to_predict_is_refused(judge):
    with pytest.raises(ValueError, match="no text has a token"):
        generative_perplexity(["", "Mia"], judge, TALES.tokenizer)
