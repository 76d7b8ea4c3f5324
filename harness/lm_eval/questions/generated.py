"""Questions the project makes: over the text that the task `text` holds out for testing, and out of words.

Every document depends on its own number alone, so they are the same on every machine; all stand in random order, so
that the first few are a fair sample of all.
"""

import re
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

from tasks import corpora
from tasks.draws import Draws
from tasks.language.windows import BORDERS

Row: TypeAlias = "dict[str, Any]"

CORPUS = "wikipedia_xml"
"""The corpus `text` reads by default. What is asked here is of its split `test`: no run is trained on that."""
PASSAGE = 1024
"""The least characters of a passage of `zoo_bits`."""
CONTEXT = 200
"""The least characters of a paragraph, and of what stands before a choice."""
CHOICES, LIKE, RECALLED, COPIED = 4, 30, 5, 3
"""Choices of each question, continuations like in length to draw from, pairs to remember, words to repeat."""
NAMES = (
    "Adam Alan Alec Amir Andy Anna Beth Carl Cleo Dale Dean Dora Elsa Emil Emma Erik Evan Finn Fred Gina Glen "
    "Greg Hans Hope Hugo Iris Ivan Jack Jane Joan Joel John Jose Juan Judy June Karl Kate Kurt Lars Lena Leon "
    "Lily Lisa Lucy Luke Mara Mark Mary Mike Mona Nina Noah Nora Olga Omar Otto Owen Paul Pete Rosa Ruth Ryan "
    "Sara"
)
WORDS = (
    "apple arrow badge basin beard bench blade board bread brick broom brush cable camel candy chain chair "
    "chalk cloak clock cloud cream crown eagle flask flour flute glass glove grape horse jewel knife ladle "
    "lemon medal melon mouse onion organ paint paper pearl piano plate quilt razor robot ruler sheep shell "
    "skirt spade spoon stone straw sugar sword table tiger torch towel tulip wheel"
)

_MARKUP = tuple(
    (re.compile(pattern), into)
    for pattern, into in (
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", '"'),
        ("&amp;", "&"),
        ("&nbsp;", " "),
        ("&[mn]dash;|[–—]", "-"),
        ("<!--.*?-->", ""),
        ("<ref[^<>]*/>", ""),
        ("<ref.*?</ref>", ""),
        ("<[^<>]*>", ""),
        (r"\{\{[^{}]*\}\}", ""),
        (r"\{\{[^{}]*\}\}", ""),  # those that held others
        (r"\[\[(?:[^\[\]|]*\|)?([^\[\]|]*)\]\]", r"\1"),
        (r"\[https?:\S+ ([^\[\]]*)\]", r"\1"),
        ("'{2,}", ""),
        (" +", " "),
    )
)
_LEFT = re.compile(r"[\[\]{}<>|=*\\&]|https?:|\( ?\)")


def bits(**_: Any) -> Row:
    """`passage`: the whole held-out text, cut behind the first line break that makes a passage long enough.

    A passage begins behind a line break, which is the token a model of bytes is given before a text: each of its
    windows is scored as the task `text` scores windows.
    """
    passages = re.findall(rf"(?s).{{{PASSAGE - 1}}}[^\n]*\n", held_out())
    return _split([{"passage": passage} for passage in passages])


def last_word(**_: Any) -> Row:
    """`context`, `word`: prose up to the end of a clause, whose last word has stood there before, as in LAMBADA."""
    rows = []
    for paragraph in paragraphs():
        for found in re.finditer(r" ([a-z]{4,})(?=[.,;:)])", paragraph):
            context = _from_sentence(paragraph[: found.start()])
            if len(context) >= CONTEXT // 2 and re.search(rf"\b{found[1]}\b", context):
                rows.append({"context": context, "word": found[1]})
    return _split(rows)


def choice(**_: Any) -> Row:
    """`context`, `choices`, `gold`: how does this passage go on? The others are how other paragraphs go on.

    All begin with a word in lower case in the middle of a sentence, and end with the word that makes them 60 characters
    long; the others are drawn from those nearest in length, so that lengths tell next to nothing.
    """
    found = [(number, *cut) for number, paragraph in enumerate(paragraphs()) for cut in _cuts(paragraph)]
    golds = _golds("choice", len(found))
    rows = []
    for number, (paragraph, context, true) in enumerate(found):
        others = [end for other, _, end in found if other != paragraph]
        others.sort(key=lambda end: abs(len(end) - len(true)))
        rows.append({"context": context, **_among(number, "choice", true, others[:LIKE], golds[number])})
    return _split(rows)


def recall(documents: int, **_: Any) -> Row:
    """`context`, `choices`, `gold`: who has which of five things? Four of those named are the choices."""
    names, words, ids = NAMES.split(), WORDS.split(), np.arange(documents)
    who = Draws("questions", "recall", "names").sample(ids, len(names), RECALLED)
    what = Draws("questions", "recall", "words").sample(ids, len(words), RECALLED)
    asked = Draws("questions", "recall", "asked").integers(ids, 1, 0, RECALLED)[:, 0]
    golds = _golds("recall", documents)
    rows = []
    for number, which in enumerate(asked):
        held = [(names[i], words[j]) for i, j in zip(who[number], what[number], strict=True)]
        told = " ".join(f"{name} has the {thing}." for name, thing in held)
        things = [thing for place, (_, thing) in enumerate(held) if place != which]
        context = f"{told} {held[which][0]} has the"
        rows.append({"context": context, **_among(number, "recall", held[which][1], things, golds[number])})
    return _split(rows, shuffled=False)


def copy(documents: int, **_: Any) -> Row:
    """`context`, `words`: three words to repeat, after an example of three others being repeated."""
    words = WORDS.split()
    drawn = Draws("questions", "copy").sample(np.arange(documents), len(words), 2 * COPIED)
    rows = []
    for row in drawn:
        shown, asked = (" ".join(words[i] for i in part) for part in (row[:COPIED], row[COPIED:]))
        context = f"Words: {shown}\nAgain: {shown}\nWords: {asked}\nAgain:"
        rows.append({"context": context, "words": asked})
    return _split(rows, shuffled=False)


def repeated(doc: Row, results: list[str]) -> dict[str, float]:
    """`exact_match`: whether the words came back, whatever blanks stand around them."""
    return {"exact_match": float(results[0].strip() == doc["words"])}


@lru_cache(maxsize=1)
def held_out() -> str:
    """The whole lines of the test split of `text`; a DataError says how to get a corpus that is not here."""
    card = corpora.get(CORPUS, "text")
    content = corpora.load(card)
    begin, end = (len(content) * part // 100 for part in BORDERS["test"])
    lines = content[begin:end]
    return lines[lines.index(b"\n") + 1 : lines.rindex(b"\n") + 1].decode()


@lru_cache(maxsize=1)
def paragraphs() -> tuple[str, ...]:
    """The held-out paragraphs that are prose in ASCII, without markup."""
    found = (_plain(line) for line in held_out().split("\n") if re.match(r"['A-Z\[&{]", line))
    return tuple(text for text in found if len(text) >= CONTEXT and text.isascii() and not _LEFT.search(text))


def _plain(line: str) -> str:
    for pattern, into in _MARKUP:
        line = pattern.sub(into, line)
    return line.strip()


def _from_sentence(text: str) -> str:
    """Its last 250 characters or some more, from the beginning of a sentence."""
    begin = text.rfind(". ", 0, max(0, len(text) - CONTEXT - 50))
    return text[begin + 2 :] if begin >= 0 else text


def _cuts(paragraph: str) -> list[tuple[str, str]]:
    """Contexts in a paragraph, and how each goes on; none of it stands in two of them."""
    cuts, at = [], 0
    for found in re.finditer(r"(?<=[a-z,]) (?=[a-z])", paragraph):
        end = re.match(r"[a-z].{59}\S*", paragraph[found.end() :])
        if end and found.start() - at >= CONTEXT and not end[0].endswith(tuple(".:;")):
            cuts.append((paragraph[at : found.start()].lstrip(), end[0]))
            at = found.end() + end.end()
    return cuts


def _golds(what: str, n: int) -> list[int]:
    """Where the true choice of each question stands: at every place equally often, in random order."""
    order = Draws("questions", what, "gold").permutation(np.array([0]), n)[0]
    return [int(place) % CHOICES for place in order]


def _among(number: int, what: str, true: str, others: list[str], gold: int) -> Row:
    """`choices`: `true` at place `gold`, and others drawn for question `number`."""
    drawn = Draws("questions", what, "others").sample(np.array([number]), len(others), CHOICES - 1)[0]
    choices = [others[i] for i in drawn]
    return {"choices": [*choices[:gold], true, *choices[gold:]], "gold": gold}


def _split(rows: list[Row], *, shuffled: bool = True) -> Row:
    """The split `test`, in random order unless the rows are random themselves."""
    from datasets import Dataset

    order = Draws("questions", "order").permutation(np.array([0]), len(rows))[0] if shuffled else range(len(rows))
    return {"test": Dataset.from_list([rows[i] for i in order])}
