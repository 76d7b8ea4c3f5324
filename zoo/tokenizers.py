"""Text as token ids and back, for models that are given text: those of a run, and those published weights bring along.

Without torch. A tokenizer travels with a model: `describe` is what a saved folder keeps of it, `make` reads it again.
"""

import ast
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from zoo.files import read_text
from zoo.options import check
from zoo.registry import nearest, options_of
from zoo.types import BadInput


class TokenizerError(BadInput):
    """A text that has no tokens, or a tokenizer that is not here. The message says what to do."""


@contextmanager
def refusing(what: str, kind: type[BadInput] = TokenizerError) -> Iterator[None]:
    """A context in which a package reads text or a tokenizer: all that it stumbles over becomes an error of one kind.

    A panic of Rust is among that, which is no Exception.
    """
    try:
        yield
    except (BadInput, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise kind(f"{what}: {said}") from None


class Tokenizer(ABC):
    """Text to ids below `vocab` and back. What `encode` gives, `decode` turns into the same text."""

    kind: ClassVar[str]
    vocab: int
    prefix: int
    """The token before a text that has nothing before it."""
    end: int | None = None
    """The token that ends a text; None where a model was never shown an end."""

    @abstractmethod
    def encode(self, text: str, *, special: bool | None = None) -> list[int]:
        """The tokens of a text; `special` with or without what stands around it (`<s>`), None as the tokenizer does.

        Raises:
            TokenizerError: a character that has no token.
        """

    @abstractmethod
    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens; bytes that are no UTF-8 become U+FFFD.

        Raises:
            TokenizerError: a token that it does not have.
        """

    def describe(self) -> dict[str, Any]:
        """As JSON, from which `make` makes it again."""
        return {"kind": self.kind}


class Bytes(Tokenizer):
    """The 256 bytes of UTF-8. A text with nothing before it stands behind a line break."""

    kind = "bytes"
    vocab, prefix = 256, 10

    def encode(self, text: str, *, special: bool | None = None) -> list[int]:
        return list(text.encode())

    def decode(self, tokens: Sequence[int]) -> str:
        return bytes(tokens).decode(errors="replace")


class Characters(Tokenizer):
    """The code points of one text, sorted.

    Args:
        characters: all of them.
    """

    kind = "characters"

    def __init__(self, characters: str) -> None:
        self.characters = characters
        self._ids = {character: i for i, character in enumerate(characters)}
        self.vocab = len(characters)
        self.prefix = self._ids.get("\n", self._ids.get(" ", 0))

    def encode(self, text: str, *, special: bool | None = None) -> list[int]:
        try:
            return [self._ids[character] for character in text]
        except KeyError as error:
            character = error.args[0]
            raise TokenizerError(
                f"{character!r} (U+{ord(character):04X}) is none of the {self.vocab} characters this model was trained "
                "on; a model with tokens=bytes reads any text"
            ) from None

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(self.characters[token] for token in tokens)

    def describe(self) -> dict[str, Any]:
        return {"kind": self.kind, "characters": self.characters}


def _check_literals(file: Path) -> None:
    """Raise a TokenizerError unless each line is a number, a literal and its length: rwkv evaluates what it reads."""
    try:
        for line in io.StringIO(read_text(file), newline=None):
            start, stop = line.index(" "), line.rindex(" ")
            token = ast.literal_eval(line[start:stop].strip())
            content = token.encode() if isinstance(token, str) else token
            if not isinstance(content, bytes) or int(line[:start]) < 0 or int(line[stop:]) != len(content):
                raise ValueError(token)
    except (OSError, ValueError, SyntaxError, MemoryError, RecursionError) as error:
        lines = "its lines must be a number, a text in quotes, and its length"
        problem = error.strerror if isinstance(error, OSError) else lines
        raise TokenizerError(f"no vocabulary at {file}: {problem}") from None


class World(Tokenizer):
    """RWKV's World vocabulary: the longest of its 65,529 tokens at each place, by the package `rwkv`.

    Args:
        path: another vocabulary in its format. prefix: 0, which ends a text, or another token.

    Raises:
        TokenizerError: the package is not installed, or there is no such file.
    """

    kind = "rwkv_world"
    vocab, end = 65_536, 0

    def __init__(self, path: str | Path | None = None, *, prefix: int = 0) -> None:
        self.path, self.prefix = path, prefix
        try:
            from rwkv import rwkv_tokenizer
        except ImportError as error:
            raise TokenizerError("RWKV's World vocabulary needs rwkv: pip install 'zoobench[rwkv]'") from error
        where = Path(path) if path else Path(rwkv_tokenizer.__file__).with_name("rwkv_vocab_v20230424.txt")
        if not where.is_file():
            raise TokenizerError(f"no vocabulary at {where}")
        if path:
            _check_literals(where)
        with refusing(f"no vocabulary at {where}"):
            self._trie, self._file = rwkv_tokenizer.TRIE_TOKENIZER(str(where)), where

    def encode(self, text: str, *, special: bool | None = None) -> list[int]:
        try:
            return list(self._trie.encode(text))
        except Exception:  # what the package says of it is a mistake of its own
            raise TokenizerError(f"the vocabulary at {self._file} has no token for some byte of the text") from None

    def decode(self, tokens: Sequence[int]) -> str:
        with refusing(f"the vocabulary at {self._file} lacks the token"):
            found = self._trie.decodeBytes([token for token in tokens if token != self.end])
        return bytes(found).decode(errors="replace")

    def describe(self) -> dict[str, Any]:
        return {"kind": self.kind, "path": str(self.path) if self.path else None, "prefix": self.prefix}


class Fast(Tokenizer):
    """A tokenizer of the package `tokenizers`, from what its `tokenizer.json` holds.

    Args:
        content: the JSON. prefix, end: as `Tokenizer`'s.
        literal: a text that spells a special token means its characters.

    Raises:
        TokenizerError: the package is not installed, or the content is not a tokenizer.
    """

    kind = "tokenizers"

    def __init__(self, content: str, *, prefix: int, end: int | None = None, literal: bool = False) -> None:
        try:
            from tokenizers import Tokenizer as Backend
        except ImportError as error:
            raise TokenizerError("this tokenizer needs tokenizers: pip install 'zoobench[data]'") from error
        with refusing("not a tokenizer"):
            self._backend = Backend.from_str(content)
            self._backend.encode_special_tokens = literal
        self.content, self.prefix, self.end, self.literal = content, prefix, end, literal

    @cached_property
    def vocab(self) -> int:  # type: ignore[override]
        return int(self._backend.get_vocab_size(with_added_tokens=True))

    def encode(self, text: str, *, special: bool | None = None) -> list[int]:
        with refusing("this tokenizer cannot read the text"):
            return list(self._backend.encode(text, add_special_tokens=special is not False).ids)

    def decode(self, tokens: Sequence[int]) -> str:
        with refusing("this tokenizer cannot write the tokens"):
            return str(self._backend.decode(list(tokens), skip_special_tokens=False))

    def describe(self) -> dict[str, Any]:
        also = {"literal": True} if self.literal else {}
        return {"kind": self.kind, "content": json.loads(self.content), "prefix": self.prefix, "end": self.end, **also}


def make(described: dict[str, Any]) -> Tokenizer:
    """The tokenizer that `describe` described.

    Raises:
        TokenizerError: unknown kind, or it cannot be made here.
    """
    if not isinstance(described, dict):
        raise TokenizerError(f"a tokenizer is a mapping with its kind, not {type(described).__name__}")
    kind, rest = str(described.get("kind")), {key: value for key, value in described.items() if key != "kind"}
    kinds: dict[str, type[Tokenizer]] = {cls.kind: cls for cls in (Bytes, Characters, World, Fast)}
    if kind not in kinds:
        raise TokenizerError(f"unknown tokenizer {kind!r}{nearest(kind, kinds)}")
    if kind == Fast.kind:
        rest["content"] = json.dumps(rest.get("content"))
    try:
        check(f"tokenizer {kind}", options_of(kinds[kind]), rest)
        made = kinds[kind](**rest)
    except (TypeError, ValueError) as error:  # a key that it does not have or that is missing, another value
        raise TokenizerError(str(error)) from None
    if not made.vocab:
        raise TokenizerError(f"tokenizer {kind}: it has no tokens")
    return made
