"""Canvases: texts with blanks as ids with MASK."""

import pytest
import torch
from toys import TALES

from diffkit.data.tokenizer import canvas_from_text, load_tokenizer
from diffkit.paths import PRETRAINED


def test_a_blank_takes_its_space_along():
    """Where " red" is one piece, a blank in its place hides it and nothing else; so does the end of a prompt."""
    tokenizer = load_tokenizer(PRETRAINED / "tinystories-mdlm")
    whole = tokenizer("Lily had a red ball. She was happy.")["input_ids"]
    red = whole.index(tokenizer(" red")["input_ids"][0])
    blanked = [tokenizer.mask_token_id if place == red else i for place, i in enumerate(whole)]
    canvas = canvas_from_text("Lily had a ___ ball. She was happy.", tokenizer, 30, complete=True)
    assert canvas[0, : len(whole)].tolist() == blanked
    prompts = [canvas_from_text(text, tokenizer, 30) for text in ("Lily had a", "Lily had a ")]
    assert torch.equal(*prompts) and prompts[0][0, :red].tolist() == whole[:red]


def test_a_prompt_becomes_a_canvas():
    canvas = canvas_from_text("One sunny ___ Mia", TALES.tokenizer, TALES.length)
    assert canvas.shape == (1, TALES.length)
    words = TALES.tokenizer.convert_ids_to_tokens(canvas[0].tolist())
    assert words == ["One", "sunny", "[MASK]", "Mia", *["[MASK]"] * (TALES.length - 4)]


def test_a_whole_text_is_closed():
    canvas = canvas_from_text("Mia ___ to the ____.", TALES.tokenizer, 10, complete=True)
    words = TALES.tokenizer.convert_ids_to_tokens(canvas[0].tolist())
    assert words == ["Mia", "[MASK]", "to", "the", "[MASK]", ".", "[EOS]", "[PAD]", "[PAD]", "[PAD]"]


def test_canvases_that_cannot_be_raise():
    with pytest.raises(ValueError, match="lacks 'Zelda', 'castle'"):
        canvas_from_text("Zelda ran to the castle", TALES.tokenizer, TALES.length)
    with pytest.raises(ValueError, match="the text has 4 tokens, the canvas holds 3"):
        canvas_from_text("Mia ran home", TALES.tokenizer, 3, complete=True)
    assert canvas_from_text("Mia ran home", TALES.tokenizer, 3).shape == (1, 3)
