"""Tokenizers by name or by file, for checkpoints that come without one or with a mere `tokenizer.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.published import files
from zoo.published.errors import PretrainedError
from zoo.tokenizers import Bytes, Fast, Tokenizer, World, make

END = "<|endoftext|>"
FILE = "tokenizer.json"


def opened(asked: str | Path, vocab: int, where: str | Path, config: Mapping[str, Any] | None = None) -> Tokenizer:
    """`bytes`, `rwkv_world`, a vocabulary in World's format (.txt), or a tokenizer.json, itself or the folder it is in.

    Texts of a tokenizer.json end, and start, with <|endoftext|> where it has one, or else with what `config` says.

    Args:
        vocab: the tokens that the model at `where` has.

    Raises:
        PretrainedError: no such file, or one with other content; a package that is missing; more tokens than `vocab`.
    """
    try:
        made = _made(asked, config or {})
    except (OSError, ValueError) as error:  # also what is no UTF-8, a TokenizerError, nothing found
        known = f"{Bytes.kind}, {World.kind}, a {FILE}, or a vocabulary in World's format (.txt)"
        said = error.strerror if isinstance(error, OSError) else error
        raise PretrainedError(f"no tokenizer {str(asked)!r}: {said}; known: {known}") from None
    if made.vocab > vocab:
        raise PretrainedError(f"{where}: the model has {vocab} tokens, and its tokenizer ({asked}) {made.vocab}")
    return made


def beside(path: Path) -> Path | None:
    """The tokenizer.json beside weights, or in their folder."""
    file = (path if path.is_dir() else path.parent) / FILE
    return file if file.is_file() else None


def _made(asked: str | Path, config: Mapping[str, Any]) -> Tokenizer:
    if str(asked) in (Bytes.kind, World.kind):
        return make({"kind": str(asked)})
    file = files.find(str(asked))
    if file.suffix == ".txt":
        return World(file)
    return _fast(file / FILE if file.is_dir() else file, config)


def _fast(file: Path, config: Mapping[str, Any]) -> Fast:
    content = file.read_text(encoding="utf-8")
    made = Fast(content, prefix=0)
    told = json.loads(content)
    words = told["model"].get("vocab")
    ids = dict(words) if isinstance(words, dict) else {}
    ids |= {token["content"]: token["id"] for token in told.get("added_tokens") or ()}
    both = [ids.get(END, config.get(key)) for key in ("bos_token_id", "eos_token_id")]
    prefix, end = (token if isinstance(token, int) else None for token in both)
    made.prefix, made.end = prefix or 0, end
    return made
