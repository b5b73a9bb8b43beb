"""The words of the two story languages: slots, sentences, plots. No mathematics here.

A slot is one random choice of a story (the hero, the thing she finds). A position of a story shows one *form* of a
slot: `{hero}` the name, `{hero.she}` the pronoun. `{hero.She}` is the pronoun at the start of a sentence. Slots are
independent of each other, so what must differ (the hero and the friend) is one slot with two names in it.
"""

from __future__ import annotations

import re
from itertools import permutations, product
from typing import NamedTuple

Forms = dict[str, str]  # form -> word; the form "" is the plain one


class Slot(NamedTuple):
    """One random choice: `values[i]`, shown through any of its forms, with probability `probs[i]`."""

    values: list[Forms]
    probs: list[float]


class Template(NamedTuple):
    """One plot: literal words and {slot.form} fields, separated by spaces; its probability and how it ends."""

    text: str
    prob: float
    label: str


class Grammar(NamedTuple):
    """Everything that defines a story language; `length` is the canvas in tokens, end-of-story and padding included."""

    slots: dict[str, Slot]
    templates: list[Template]
    length: int


def slot_and_form(word: str) -> tuple[str, str] | None:
    """'{hero.she}' -> ('hero', 'she'); a literal word -> None."""
    match = re.fullmatch(r"\{(\w+)(?:\.(\w+))?\}", word)
    return (match[1], match[2] or "") if match else None


def uniform(*values: str | Forms) -> Slot:
    """A slot whose values are equally likely; a bare word is short for {"": word}."""
    forms = [{"": value} if isinstance(value, str) else value for value in values]
    return Slot(forms, [1 / len(forms)] * len(forms))


def paired(key: str, words: dict[str, str]) -> Slot:
    """A slot with a plain form and one more: paired("noun", {"rainy": "rain"})."""
    return uniform(*({"": word, key: other} for word, other in words.items()))


# ---------------------------------------------------------------------------------------------------------------- tales

GIRL = {"she": "she", "She": "She", "her": "her", "Her": "Her"}
BOY = {"she": "he", "She": "He", "her": "his", "Her": "His"}
CHILDREN = {"Mia": GIRL, "Lily": GIRL, "Anna": GIRL, "Rosa": GIRL, "Tom": BOY, "Ben": BOY, "Leo": BOY, "Max": BOY}


def article(word: str) -> Forms:
    """A word and the article that it takes: {"": "old", "a": "an"}."""
    return {"": word, "a": "an" if word[0] in "aeiou" else "a"}


def hiding_place(preposition: str, noun: str) -> Forms:
    """A place and the preposition that leads there, plain and at the start of a sentence."""
    return {"": noun, "under": preposition, "Under": preposition.capitalize()}


HIDING_PLACES = {
    "bench": "under", "tree": "under", "rock": "behind", "bush": "behind", "fence": "near", "pond": "near",
    "log": "beside", "wall": "beside",
}  # fmt: skip
TALES_SLOTS = {
    "hero": uniform(*({"": hero, **CHILDREN[hero], "friend": friend} for hero, friend in permutations(CHILDREN, 2))),
    "weather": paired(
        "rain", {"sunny": "sun", "rainy": "rain", "windy": "wind", "snowy": "snow", "foggy": "fog", "stormy": "storm"}
    ),
    "time": uniform("morning", "day", "afternoon", "evening"),
    "walked": uniform("walked", "ran", "hurried", "skipped", "marched", "strolled"),
    "park": uniform("park", "garden", "forest", "farm", "beach", "hill", "lake", "market"),
    "red": uniform(*map(article, ["red", "blue", "green", "yellow", "orange", "old", "tiny", "shiny"])),
    "kite": uniform("kite", "ball", "drum", "shell", "hat", "cup", "bell", "book", "lamp", "spoon", "feather", "ring"),
    "bench": uniform(*(hiding_place(preposition, noun) for noun, preposition in HIDING_PLACES.items())),
    "hungry": uniform(*map(article, ["hungry", "lonely", "little", "clever", "angry", "old"])),
    "fox": uniform("fox", "cat", "dog", "goat", "duck", "bear", "crow", "mouse"),
    "mom": uniform("mom", "dad", "grandma", "grandpa"),
    "tired": uniform("tired", "sleepy", "hungry", "cold"),
    "proud": uniform("proud", "lucky", "happy"),
    "glad": uniform("glad", "merry", "happy"),
    "sad": uniform("sad", "upset", "sorry"),
    "calm": uniform("calm", "good", "wise"),
}

OPENINGS = [
    ("One {weather} {time} {hero} {walked} to the {park} .", 0.6),
    ("{hero} {walked} to the {park} on a {weather} {time} .", 0.4),
]
FINDS = [
    ("{hero.She} found {red.a} {red} {kite} {bench.under} a {bench} .", 0.6),
    ("{bench.Under} a {bench} {hero.she} found {red.a} {red} {kite} .", 0.4),
]
NOTHING = "{hero.She} looked {bench.under} every {bench} but found nothing ."

# How a story can go on: (middle sentence, its probability, {ending: the sentence it ends on}).
KEPT = "{hero} took the {red} {kite} home to {hero.her} {mom} ."
LOST = "But {hero} lost it again at the {park} ."
RETURNED = "But {hero} put it back {bench.under} the {bench} ."
MIDDLES = [
    ("", 0.15, {"kept": KEPT, "lost": LOST, "returned": RETURNED}),
    ("{hero} did not mind the {weather.rain} at all .", 0.15, {"kept": KEPT, "lost": LOST, "returned": RETURNED}),
    (
        "{hero.Her} friend {hero.friend} wanted the {kite} too .",
        0.3,
        {"shared": "{hero} and {hero.friend} played with it until they were {tired} .", "kept": KEPT, "lost": LOST},
    ),
    (
        "Then {hungry.a} {hungry} {fox} asked for the {kite} .",
        0.25,
        {"shared": "So {hero} and the {fox} shared the {red} {kite} .", "kept": KEPT, "returned": RETURNED},
    ),
    (
        "Then {hungry.a} {hungry} {fox} grabbed the {kite} .",
        0.15,
        {
            "kept": "But {hero} ran after the {fox} and got it back .",
            "lost": "The {fox} ran off and {hero} never saw it again .",
        },
    ),
]
FEELINGS = {
    "kept": "{hero.She} felt {proud} all {time} .",
    "shared": "They felt {glad} all {time} .",
    "lost": "{hero.She} felt {sad} all {time} .",
    "returned": "{hero.She} felt {calm} all {time} .",
}
SMILE = "{hero.Her} {mom} smiled ."
SEARCHED_IN_VAIN = 0.08  # share of the short stories in which nothing is found


def closings(label: str, ending: str) -> list[tuple[str, float]]:
    """Ways to round a story off: stop, say the feeling, or let the parent smile."""
    if ending == KEPT:
        return [("", 0.4), (FEELINGS[label], 0.35), (SMILE, 0.25)]
    return [("", 0.5), (FEELINGS[label], 0.5)]


def tales_templates() -> list[Template]:
    """Every plot of `tales`: opening, find (or nothing), middle, ending, closing; the probabilities multiply."""
    plots = [
        (f"{opening} {NOTHING} {closing}", SEARCHED_IN_VAIN * p * q, "lost")
        for opening, p in OPENINGS
        for closing, q in closings("lost", NOTHING)
    ]
    for (opening, p), (find, q), (middle, r, endings) in product(OPENINGS, FINDS, MIDDLES):
        for label, ending in endings.items():
            for closing, s in closings(label, ending):
                prob = (1 - SEARCHED_IN_VAIN) * p * q * r / len(endings) * s
                plots.append((f"{opening} {find} {middle} {ending} {closing}", prob, label))
    return [Template(" ".join(text.split()), prob, label) for text, prob, label in plots]


TALES = Grammar(TALES_SLOTS, tales_templates(), length=48)

# ---------------------------------------------------------------------------------------------------------------- micro

MICRO = Grammar(
    slots={
        "Mia": Slot([{"": "Mia", "Tom": "Tom"}, {"": "Tom", "Tom": "Mia"}], [0.7, 0.3]),
        "ran": Slot([{"": "ran", "hid": "hid"}, {"": "hid", "hid": "ran"}], [0.6, 0.4]),
    },
    templates=[
        Template("{Mia} {ran}", 0.3, "short"),
        Template("{Mia} {Mia.Tom} {ran}", 0.1, "short"),
        Template("{Mia} {ran} {Mia.Tom} {ran}", 0.4, "long"),
        Template("{Mia} {ran} {Mia} {ran.hid}", 0.2, "long"),
    ],
    length=5,
)

GRAMMARS = {"tales": TALES, "micro": MICRO}
