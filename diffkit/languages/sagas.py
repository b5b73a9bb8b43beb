"""The words of the sagas: what stays, what changes, the chapters and the chain that orders them. No mathematics here.

A saga is a chain of chapters. Its *shared* slots (the hero, the friend, their home, the thing they seek) are drawn once
and show in every chapter; all other slots are drawn anew in each chapter. Which chapter comes next depends on the
chapter before it alone, until a closing chapter ends the saga. Nothing limits their number but the canvas.
"""

from __future__ import annotations

from typing import NamedTuple

from diffkit.languages.tales import BOY, GIRL, Slot, article, paired, uniform

Chain = dict[str, float]  # the name of a chapter -> its probability of coming next


class Chapter(NamedTuple):
    """Literal words and {slot.form} fields, as in a Template; a closing chapter has a label and no chapter after it."""

    text: str
    next: Chain = {}
    label: str = ""


class SagaGrammar(NamedTuple):
    """Everything that defines a language of sagas; `length` is the canvas in tokens unless another one is asked for."""

    shared: dict[str, Slot]
    slots: dict[str, Slot]
    first: Chain
    chapters: dict[str, Chapter]
    length: int


# ---------------------------------------------------------------------------------------------------------------- sagas

CHILDREN = {"Mia": GIRL, "Lily": GIRL, "Tom": BOY, "Ben": BOY}
SAGAS_SHARED = {
    "hero": uniform(*({"": name, **forms} for name, forms in CHILDREN.items())),
    "friend": uniform("fox", "goat", "dog", "cat"),
    "home": paired("sea", {"mill": "river", "farm": "lake", "lighthouse": "sea"}),
    "thing": paired("golden", {"key": "golden", "bell": "silver", "lamp": "magic", "ring": "ruby"}),
}
# A slot is named after the first of its values.
SAGAS_WORDS = """
little white crooked quiet lonely pretty | sunny cold windy grey misty frosty
morning evening afternoon day | brave clever kind cheerful | wicked sly bold nasty clumsy
thief giant witch pirate dragon wizard | deep dark silent green gloomy cold
owl wolf bear deer hare badger snake mole | narrow secret winding steep stony | wide wild muddy icy roaring
raft boat bridge | oak birch pine willow | bare snowy windy rocky lonely | slept rested waited sat
blanket coat bread soup cheese apple | baker farmer miller tailor smith widow
bread cake milk honey plums porridge stew | found seen bought stolen | greedy grumpy hairy huge hungry
troll ogre goblin robber | supper breakfast dinner lunch | sang talked cried hummed spoke
long sadly softly gently sweetly | whispered talked sang worried | moon sun wind mist
mossy broken round grey hollow | rock log wall well stump | glove button feather boot scarf hat
nest cave tower barn chest ruin | happy glad merry proud | poor lonely sick blind
girl boy shepherd queen king sailor | hundred dozen thousand | stories songs riddles jokes
"""
SAGAS_SLOTS = {words.split()[0]: uniform(*words.split()) for words in SAGAS_WORDS.replace("\n", "|").split("|")[1:-1]}
SAGAS_SLOTS["old"] = uniform(*map(article, ["old", "tired", "hungry", "wise", "angry", "friendly"]))

SAGAS_CHAPTERS = {
    "once": Chapter(
        "Once {hero} lived in a {little} {home} by the {home.sea} with {hero.her} {friend} . One {sunny} {morning} "
        "the {thing.golden} {thing} was gone , and they went to find it .",
        {"forest": 0.4, "village": 0.3, "river": 0.2, "track": 0.1},
    ),
    "there": Chapter(
        "There was a {brave} child called {hero} . A {wicked} {thief} stole the {thing.golden} {thing} from the "
        "{home} by the {home.sea} . {hero} and the {friend} went after it .",
        {"forest": 0.2, "village": 0.3, "river": 0.1, "track": 0.4},
    ),
    "forest": Chapter(
        "In the {deep} forest {hero} and the {friend} met {old.a} {old} {owl} . It showed them a {narrow} path but "
        "not the {thing} .",
        {"river": 0.25, "mountain": 0.2, "night": 0.25, "track": 0.2, "lost": 0.1},
    ),
    "river": Chapter(
        "A {wide} river lay in the way . {hero} made a {raft} of {oak} and took the {friend} across to find the "
        "{thing} .",
        {"village": 0.35, "mountain": 0.25, "troll": 0.2, "night": 0.1, "found": 0.1},
    ),
    "mountain": Chapter(
        "On a {bare} mountain they {slept} under stars . {hero} gave the {friend} {hero.her} {blanket} and dreamed "
        "of the {home} by the {home.sea} .",
        {"village": 0.3, "forest": 0.25, "troll": 0.2, "track": 0.1, "lost": 0.15},
    ),
    "village": Chapter(
        "In the next village a {baker} gave {hero} and the {friend} some {bread} but had not {found} the "
        "{thing.golden} {thing} .",
        {"forest": 0.3, "troll": 0.25, "night": 0.25, "given": 0.2},
    ),
    "troll": Chapter(
        "Under a bridge a {greedy} {troll} wanted the {friend} for {supper} . {hero} {sang} so {long} about the "
        "{home} that it fell asleep .",
        {"mountain": 0.25, "forest": 0.25, "village": 0.15, "track": 0.2, "found": 0.15},
    ),
    "night": Chapter(
        "That night {hero} stayed awake . {hero.She} sat by the {friend} and {whispered} about the {home} until the "
        "{moon} rose .",
        {"village": 0.25, "track": 0.35, "river": 0.2, "mountain": 0.1, "lost": 0.1},
    ),
    "track": Chapter(
        "Behind a {mossy} {rock} the {friend} found a {glove} . Had {hero} come nearer to the {thing} ?",
        {"forest": 0.2, "village": 0.1, "troll": 0.2, "river": 0.15, "night": 0.1, "found": 0.15, "given": 0.1},
    ),
    "found": Chapter(
        "At last they found the {thing.golden} {thing} in a {nest} . {hero} and the {friend} took it back to the "
        "{home} by the {home.sea} and were {happy} ever after .",
        label="found",
    ),
    "given": Chapter(
        "In the end a {poor} {girl} needed the {thing} more than they did . So {hero} and the {friend} left it there "
        "and went home to the {home} by the {home.sea} .",
        label="given",
    ),
    "lost": Chapter(
        "Nobody ever saw the {thing.golden} {thing} again . But {hero} and the {friend} came back to the {home} by "
        "the {home.sea} with a {hundred} {stories} to tell .",
        label="lost",
    ),
}
SAGAS = SagaGrammar(SAGAS_SHARED, SAGAS_SLOTS, {"once": 0.5, "there": 0.5}, SAGAS_CHAPTERS, length=256)

# ---------------------------------------------------------------------------------------------------------- micro-sagas

MICRO_SAGAS = SagaGrammar(
    shared={
        "Mia": Slot([{"": "Mia", "Tom": "Tom"}, {"": "Tom", "Tom": "Mia"}], [0.7, 0.3]),
        "home": Slot([{"": "home"}, {"": "away"}], [0.6, 0.4]),
    },
    slots={"ran": Slot([{"": "ran"}, {"": "hid"}], [0.6, 0.4])},
    first={"one": 1.0},
    chapters={
        "one": Chapter("{Mia} {home}", {"two": 0.6, "three": 0.2, "end": 0.2}),
        "two": Chapter("and {ran}", {"two": 0.5, "three": 0.3, "end": 0.2}),
        "three": Chapter("{ran} {Mia.Tom} {ran}", {"two": 0.4, "sad": 0.6}),
        "end": Chapter(".", label="end"),
        "sad": Chapter("but {home}", label="sad"),
    },
    length=10,
)

SAGA_GRAMMARS = {"sagas": SAGAS, "micro-sagas": MICRO_SAGAS}
