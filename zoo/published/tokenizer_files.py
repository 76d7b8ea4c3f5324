"""Tokenizers by name or file, for checkpoints that come without one or with only a `tokenizer.json`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.files import read_text
from zoo.published import files
from zoo.published.errors import PretrainedError
from zoo.tokenizers import Bytes, Fast, Tokenizer, World, make

END = "<|endoftext|>"
FILE = "tokenizer.json"


def load(name: str | Path, vocab: int, where: str | Path, config: Mapping[str, Any] | None = None) -> Tokenizer:
    """`bytes`, `rwkv_world`, a vocabulary in World's format (.txt), or a tokenizer.json or the folder that holds it.

    A text of a tokenizer.json starts and ends with <|endoftext|> if that is a token, or else as `config` says.

    Args:
        vocab: the number of tokens of the model at `where`.
    """
    try:
        tokenizer = _load(name, config or {})
    except (OSError, ValueError) as error:  # also no UTF-8, a TokenizerError, or a PretrainedError
        known = f"{Bytes.kind}, {World.kind}, a {FILE}, or a vocabulary in World's format (.txt)"
        problem = error.strerror if isinstance(error, OSError) else error
        raise PretrainedError(f"no tokenizer {str(name)!r}: {problem}; known: {known}") from None
    if not 0 < tokenizer.vocab <= vocab:
        raise PretrainedError(f"{where}: the model has {vocab} tokens, and its tokenizer ({name}) {tokenizer.vocab}")
    return tokenizer


def beside(path: Path) -> Path | None:
    """The tokenizer.json in the folder of the weights, if any."""
    file = (path if path.is_dir() else path.parent) / FILE
    return file if file.is_file() else None


def _load(name: str | Path, config: Mapping[str, Any]) -> Tokenizer:
    if str(name) in (Bytes.kind, World.kind):
        return make({"kind": str(name)})
    file = files.find(str(name))
    if file.suffix == ".txt":
        return World(file)
    return _fast(file / FILE if file.is_dir() else file, config)


def _fast(file: Path, config: Mapping[str, Any]) -> Fast:
    content = read_text(file)
    tokenizer = Fast(content, prefix=0)
    description = json.loads(content)
    words = description["model"].get("vocab")
    ids = dict(words) if isinstance(words, dict) else {}
    ids |= {token["content"]: token["id"] for token in description.get("added_tokens") or ()}
    both = [ids.get(END, config.get(key)) for key in ("bos_token_id", "eos_token_id")]
    prefix, end = (token if isinstance(token, int) else None for token in both)
    tokenizer.prefix, tokenizer.end = prefix or 0, end
    return tokenizer
