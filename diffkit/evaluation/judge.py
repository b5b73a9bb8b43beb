"""Generative perplexity: what another language model thinks of texts, with their own entropy beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

from diffkit.data.tokenizer import load_tokenizer
from diffkit.evaluation.samples import entropy_within


class Judged(NamedTuple):
    """A judge's verdict."""

    perplexity: float  # exp of its mean nats per predicted token
    entropy: float  # of the tokens within one text, nats, averaged over texts; low where a text repeats itself
    tokens: int  # predicted tokens


def load_judge(name_or_folder: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Any causal language model of transformers with its tokenizer, by name on the Hub or from a local folder.

    Only safetensors are read, and no code that comes with a model is run.
    Raises: OSError if there is no such model; ValueError if it needs code of its own.
    """
    config = AutoConfig.from_pretrained(name_or_folder, trust_remote_code=False)
    if "/" in str(config._attn_implementation):
        raise ValueError(
            f"load_judge: {name_or_folder!r} asks for the code {config._attn_implementation!r} from the Hub, which is "
            "never run. Take `attn_implementation` out of its config.json, or choose another judge."
        )
    judge = AutoModelForCausalLM.from_pretrained(
        name_or_folder, config=config, use_safetensors=True, trust_remote_code=False
    )
    return judge.eval(), load_tokenizer(name_or_folder)


@torch.no_grad()
def generative_perplexity(texts: Sequence[str], judge: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Judged:
    """The perplexity of texts under a causal language model, one text at a time, no padding.

    A tokenizer with a BOS token puts it in front, so that the first token is predicted too; otherwise it is not.
    It falls when texts become more typical than real ones: print the same number for real text beside it.

    Raises: ValueError if no text has a token to predict.
    """
    if isinstance(texts, str):
        raise TypeError(f"generative_perplexity: texts are many, got one: {texts[:40]!r}. Put it into a list.")
    nats, tokens, entropies = 0.0, 0, []
    for text in texts:
        words = tokenizer(text, add_special_tokens=False)["input_ids"]
        ids = [tokenizer.bos_token_id, *words] if tokenizer.bos_token_id is not None else words
        if len(ids) < 2:
            continue
        x = torch.tensor([ids], device=judge.device)
        log_p = judge(x[:, :-1]).logits.double().log_softmax(-1)
        nats -= log_p.gather(-1, x[:, 1:, None]).sum().item()
        tokens += len(ids) - 1
        entropies.append(entropy_within(words))
    if not tokens:
        raise ValueError("generative_perplexity: no text has a token to predict. Are the texts empty?")
    return Judged(math.exp(nats / tokens), sum(entropies) / len(entropies), tokens)
