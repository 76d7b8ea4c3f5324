"""Tokenizers of transformers as ours, and ours as theirs, with the same tokens for every text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo.published.errors import PretrainedError, missing
from zoo.tokenizers import Bytes, Characters, Fast, Tokenizer

END = "<|endoftext|>"
"""What ends a text there, where ours has no end: transformers cannot generate without one."""
NEVER = 255
"""A byte that no UTF-8 text contains."""
SIGNS = ("token*", "vocab*", "merges*", "*.model", "*.spm", "*.tiktoken", "tekken*")
"""Files of which a folder has one if it has a tokenizer."""


class HuggingFace(Tokenizer):
    """A tokenizer of transformers. A text with nothing before it stands behind its `bos_token`, or else `eos_token`.

    Args:
        backend: what `AutoTokenizer` gives.
    """

    kind = "transformers"

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.vocab = len(backend)
        self.end = backend.eos_token_id
        first = backend.bos_token_id if backend.bos_token_id is not None else self.end
        self.prefix = 0 if first is None else first

    def encode(self, text: str, *, special: bool | None = None) -> list[int]:
        asked = {} if special is None else {"add_special_tokens": special}
        return list(self.backend.encode(text, verbose=False, **asked))

    def decode(self, tokens: Sequence[int]) -> str:
        ids = [int(token) for token in tokens]
        return str(self.backend.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def describe(self) -> dict[str, Any]:
        """As `Fast`'s, which `make` reads without transformers.

        Raises:
            PretrainedError: it is written in Python and has no `tokenizer.json`.
        """
        if not self.backend.is_fast:
            raise PretrainedError(f"{type(self.backend).__name__} has no tokenizer.json; it cannot be kept in a folder")
        content = self.backend.backend_tokenizer.to_str()
        literal = bool(self.backend.split_special_tokens)
        return Fast(content, prefix=self.prefix, end=self.end, literal=literal).describe()


def load(folder: Path, transformers: Any) -> HuggingFace | None:
    """The tokenizer in a folder; None where there is none.

    Raises:
        PretrainedError: it cannot be read, or needs a package that is missing.
    """
    if not any(next(folder.glob(sign), None) for sign in SIGNS):
        return None
    try:
        made = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        return HuggingFace(made)
    except Exception as error:  # whatever its files make Python or Rust stumble over
        said = " ".join(str(error).split()) or type(error).__name__
        raise PretrainedError(f"{folder}: its tokenizer cannot be read: {said[:300]}") from None


def to_hf(tokenizer: Tokenizer, length: int) -> Any:
    """A `PreTrainedTokenizerFast` with the same tokens, that `save_pretrained` writes and `AutoTokenizer` opens.

    Its `bos_token` is our prefix. Its `eos_token` is our end; where ours has none, a token that no text has if there
    is one, and the prefix otherwise. Neither is added to a text, and nothing in a text is taken for them.

    Args:
        length: the longest sequence, in tokens.

    Raises:
        PretrainedError: transformers has no such tokenizer, or is not installed.
    """
    try:
        from transformers import PreTrainedTokenizerFast
    except ImportError:
        raise missing("transformers", "transformers", "writing a tokenizer for transformers") from None
    if isinstance(tokenizer, HuggingFace):
        return tokenizer.backend
    backend, literal = _backend(tokenizer)
    end = tokenizer.end if tokenizer.end is not None else backend.token_to_id(END)
    first, last = (backend.id_to_token(i) for i in (tokenizer.prefix, tokenizer.prefix if end is None else end))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=first,
        eos_token=last,
        split_special_tokens=literal,
        clean_up_tokenization_spaces=False,
        model_max_length=length,
    )


def save(tokenizer: Any, folder: Path) -> None:
    """Write what `to_hf` made.

    transformers would turn what it calls bos and eos into special tokens as it reads them, and then leave line breaks
    out of what it decodes, unless the config says that no tokens are to be added to those of `tokenizer.json`.
    """
    tokenizer.save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    told = json.loads(file.read_text(encoding="utf-8")) | {"added_tokens_decoder": {}}
    file.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _backend(tokenizer: Tokenizer) -> tuple[Any, bool]:
    """It in the package `tokenizers`, and whether a text that spells a special token means its characters."""
    from tokenizers import Tokenizer as Backend

    if isinstance(tokenizer, Bytes):
        made = _bytes(Backend)
    elif isinstance(tokenizer, Characters):
        made = _characters(Backend, tokenizer)
    elif isinstance(tokenizer, Fast):
        made = Backend.from_str(tokenizer.content)
    else:
        raise PretrainedError(
            f"transformers has no tokenizer like {tokenizer.kind}; it has those of "
            "bytes, characters and a tokenizer.json"
        )
    literal = not made.get_added_tokens_decoder() or getattr(tokenizer, "literal", False)
    _name(made, [tokenizer.prefix, made.token_to_id(END) if tokenizer.end is None else tokenizer.end])
    return made, literal


def _name(backend: Any, ids: Sequence[int | None]) -> None:
    """Make tokens known by name, as transformers wants those that it calls bos and eos.

    One that texts have must not be `special`, or decoding would leave it out. A text is then searched for what it is
    spelt as, so that where GPT-2's line break is meant a letter Ċ that stands alone is taken for it.
    """
    from tokenizers import AddedToken

    held = backend.get_added_tokens_decoder()
    for token in ids:
        if token is None or token in held:
            continue
        text = backend.decode([token], skip_special_tokens=False)
        ordinary = token in backend.encode(text, add_special_tokens=False).ids
        spelt = backend.id_to_token(token)
        told = AddedToken(spelt, special=not ordinary, normalized=False, single_word=ordinary and spelt != text)
        (backend.add_tokens if ordinary else backend.add_special_tokens)([told])


def _bytes(backend: type) -> Any:
    """Byte-level BPE without merges, whose ids are the bytes.

    It is the normalizer that spells a byte as a character, and a line break stays one: texts are searched for the bos
    token before that, and were it spelt `Ċ`, as in GPT-2, a text that has this letter would be misread.
    """
    from tokenizers import decoders, models, normalizers

    vocabulary = {{10: "\n", NEVER: END}.get(byte, _spelt(byte)): byte for byte in range(256)}
    made = backend(models.BPE(vocab=vocabulary, merges=[]))
    made.normalizer = normalizers.Sequence([normalizers.ByteLevel(), normalizers.Replace(_spelt(10), "\n")])
    made.decoder = decoders.ByteLevel()
    return made


def _spelt(byte: int) -> str:
    """A byte as GPT-2 spells it: itself where it prints, the others from U+0100 on."""
    unprinted = [*range(33), *range(127, 161), 173]
    return chr(256 + unprinted.index(byte)) if byte in unprinted else chr(byte)


def _characters(backend: type, tokenizer: Characters) -> Any:
    """A word for each character."""
    from tokenizers import Regex, decoders, models, pre_tokenizers

    made = backend(models.WordLevel({character: i for i, character in enumerate(tokenizer.characters)}))
    made.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    made.decoder = decoders.Fuse()
    return made
