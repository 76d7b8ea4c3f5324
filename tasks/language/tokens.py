"""Texts as token ids: bytes, characters, GPT-2's byte-pair encoding, RWKV's World vocabulary.

Every id stands for a fixed number of UTF-8 bytes, and together the tokens of a text are its bytes, so that what a model
pays for tokens can be counted per byte.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from tasks import corpora
from tasks.base import DataError
from tasks.corpora import Card
from zoo import files, tokenizers
from zoo.tokenizers import Tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer as BytePairs

Kind: TypeAlias = Literal["bytes", "characters", "gpt2", "rwkv_world"]
KINDS: tuple[Kind, ...] = get_args(Kind)
SIZES: dict[Kind, int] = {"bytes": 256, "gpt2": 50_257, "rwkv_world": 65_536}
"""Vocabularies whose size is known without looking at a text. RWKV's ids are 1 to 65,529; 0 ends a text."""
_CHUNK = 1 << 20


def size(card: Card, kind: Kind) -> int:
    """Token ids are below this."""
    return SIZES[kind] if kind in SIZES else len(_characters(card))


def tokenizer(card: Card, kind: Kind) -> Tokenizer:
    """What encodes any text as a corpus is encoded. A text with nothing before it stands behind a line break, as no
    corpus says where its texts end.

    Raises:
        DataError: what it needs is not here.
    """
    if kind == "bytes":
        return tokenizers.Bytes()
    if kind == "characters":
        return tokenizers.Characters("".join(map(chr, _characters(card))))
    try:
        if kind == "gpt2":
            fast = _gpt2()
            return tokenizers.Fast(fast.to_str(), prefix=fast.encode("\n").ids[0])
        return tokenizers.World(prefix=_world()[b"\n"])
    except tokenizers.TokenizerError as error:
        raise DataError(str(error)) from None


@lru_cache(maxsize=16)
def widths(card: Card, kind: Kind) -> NDArray[np.int64]:
    """How many UTF-8 bytes each id stands for, shape (size,); 0 for an id that no text contains."""
    if kind == "bytes":
        return np.ones(256, dtype=np.int64)
    if kind == "characters":
        return 1 + np.searchsorted([0x80, 0x800, 0x10000], _characters(card), side="right")
    if kind == "gpt2":
        vocabulary: dict[str, int] = json.loads(corpora.load(corpora.get("gpt2_vocabulary")))
        found = np.zeros(SIZES[kind], dtype=np.int64)
        found[list(vocabulary.values())] = [len(token) for token in vocabulary]
        found[vocabulary["<|endoftext|>"]] = 0
        return found
    found = np.zeros(SIZES[kind], dtype=np.int64)
    for token, number in _world().items():
        found[number] = len(token)
    return found


@lru_cache(maxsize=16)
def encoded(card: Card, kind: Kind, start: int, stop: int) -> NDArray[Any]:
    """The tokens of bytes `start` to `stop` of a corpus, of the smallest unsigned type that holds them all.

    Kept in memory, and below `corpora.home()` too where making them takes long.

    Raises:
        DataError: the corpus or the vocabulary is not here, or the text is not UTF-8 where it must be.
    """
    content = corpora.load(card)
    if kind == "bytes":
        return np.frombuffer(content, dtype=np.uint8)[start:stop]
    piece = content[start:stop]
    if kind == "characters":
        points = _points(card, piece, start)
        return np.searchsorted(_characters(card), points).astype(np.min_scalar_type(len(_characters(card))))
    if kind == "gpt2":
        _text(card, piece, start)
    return _kept(kind, piece)


def border(card: Card, kind: Kind, place: int) -> int:
    """`place`, moved to the next beginning of a UTF-8 character where tokens are not bytes."""
    if kind == "bytes":
        return place
    content = corpora.load(card)
    while place < len(content) and content[place] & 0xC0 == 0x80:
        place += 1
    return place


def _text(card: Card, piece: bytes, start: int) -> str:
    try:
        return piece.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{card.name} is not UTF-8 at byte {start + error.start} ({error.reason}): use tokens=bytes, or mend it"
        ) from error


def _points(card: Card, piece: bytes, start: int) -> NDArray[np.uint32]:
    return np.frombuffer(_text(card, piece, start).encode("utf-32-le"), dtype="<u4")


@lru_cache(maxsize=8)
def _characters(card: Card) -> NDArray[np.uint32]:
    """The code points of a text, sorted."""
    return np.unique(_points(card, corpora.load(card), 0))


def _kept(kind: Kind, piece: bytes) -> NDArray[Any]:
    """The tokens of `piece`, from disk if they were made before."""
    if len(piece) < _CHUNK:
        return encode(kind, piece)
    key = hashlib.sha256(kind.encode() + hashlib.sha256(piece).digest()).hexdigest()[:32]
    path = corpora.home() / "tokens" / f"{kind}-{key}.npy"
    with contextlib.suppress(OSError, ValueError, EOFError):
        found: NDArray[Any] = np.load(path, allow_pickle=False)
        if found.dtype == np.uint16 and found.ndim == 1:
            return found
    made = encode(kind, piece)
    with contextlib.suppress(OSError), files.whole(path) as part, part.open("wb") as file:
        np.save(file, made, allow_pickle=False)
    return made


def encode(kind: Kind, piece: bytes) -> NDArray[np.uint16]:
    """The tokens of a text under one of the fixed vocabularies, `gpt2` (UTF-8 only) or `rwkv_world` (any bytes)."""
    if kind == "gpt2":
        chunks = [np.array(_gpt2().encode(chunk).ids, dtype=np.uint16) for chunk in _at_spaces(piece.decode())]
        return np.concatenate([np.empty(0, dtype=np.uint16), *chunks])
    return np.fromiter(_greedy(piece), dtype=np.uint16)


def _at_spaces(text: str) -> Iterator[str]:
    """The text in chunks of some `_CHUNK` characters, cut before a space or line break behind a letter.

    GPT-2's pattern begins a new piece there whatever stands around it, so chunks are encoded as the whole would be.
    """
    start, cut = 0, re.compile(r"(?<=[A-Za-z])[ \n]")
    while start < len(text):
        found = cut.search(text, start + _CHUNK)
        stop = found.start() if found else len(text)
        yield text[start:stop]
        start = stop


@lru_cache(maxsize=1)
def _gpt2() -> BytePairs:
    try:
        from tokenizers import Tokenizer as BytePairs
        from tokenizers import decoders, models, pre_tokenizers
    except ImportError as error:
        raise DataError(
            "tokens=gpt2 needs the tokenizers package: install it with: pip install 'zoobench[data]'"
        ) from error
    vocabulary = json.loads(corpora.load(corpora.get("gpt2_vocabulary")))
    lines = corpora.load(corpora.get("gpt2_merges")).decode().split("\n")
    merges = [(left, right) for left, _, right in (line.partition(" ") for line in lines[1:] if line)]
    made = BytePairs(models.BPE(vocab=vocabulary, merges=merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return made


@lru_cache(maxsize=1)
def _world() -> dict[bytes, int]:
    """RWKV's tokens and their ids. A line is: id, a Python literal of a string or of bytes, length in bytes."""
    found = {}
    for line in corpora.load(corpora.get("rwkv_world")).decode().split("\n"):
        if line:
            number, rest = line.split(" ", 1)
            token = ast.literal_eval(rest.rsplit(" ", 1)[0].strip())
            found[token.encode() if isinstance(token, str) else token] = int(number)
    return found


@lru_cache(maxsize=1)
def _lengths() -> dict[bytes, tuple[int, ...]]:
    """For every beginning of two bytes, the lengths of the tokens that begin so, longest first, and 1."""
    found: dict[bytes, set[int]] = {}
    for token in _world():
        found.setdefault(token[:2], {1}).add(len(token))
    return {head: tuple(sorted(lengths, reverse=True)) for head, lengths in found.items()}


def _greedy(piece: bytes) -> Iterator[int]:
    """The longest token at each place. Every single byte is a token."""
    tokens, lengths, place, single = _world(), _lengths(), 0, (1,)
    while place < len(piece):
        for length in lengths.get(piece[place : place + 2], single):
            token = piece[place : place + length]
            number = tokens.get(token)
            if number is not None:
                yield number
                place += len(token)
                break
