"""Tokenizers of transformers as ours, and ours as theirs, with equal tokens for every text."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zoo import files
from zoo.published.errors import PretrainedError, need
from zoo.tokenizers import Bytes, Characters, Fast, Tokenizer, refusing

END = "<|endoftext|>"
"""The end of a text for transformers, which cannot generate without one, where our tokenizer has none."""
UNUSED = 255
"""A byte that no UTF-8 text contains."""
FILES = ("token*", "vocab*", "merges*", "*.model", "*.spm", "*.tiktoken", "tekken*")
"""Files by which a folder with a tokenizer is recognised."""


class HuggingFace(Tokenizer):
    """A tokenizer of transformers. The prefix of a text is its `bos_token`, or else its `eos_token`.

    Args:
        backend: the tokenizer that `AutoTokenizer` opens.
    """

    kind = "transformers"

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.vocab = len(backend)
        self.end = backend.eos_token_id
        first = backend.bos_token_id if backend.bos_token_id is not None else self.end
        self.prefix = 0 if first is None else first

    def encode(self, text: str, *, special: bool | None = None) -> list[int]:
        options = {} if special is None else {"add_special_tokens": special}
        with refusing("this tokenizer cannot read the text"):
            return list(self.backend.encode(text, verbose=False, **options))

    def decode(self, tokens: Sequence[int]) -> str:
        ids = [int(token) for token in tokens]
        with refusing("this tokenizer cannot write the tokens"):
            return str(self.backend.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def describe(self) -> dict[str, Any]:
        """As JSON, from which `make` makes a `Fast` without transformers."""
        if not self.backend.is_fast:
            raise PretrainedError(f"{type(self.backend).__name__} has no tokenizer.json; it cannot be kept in a folder")
        content = self.backend.backend_tokenizer.to_str()
        literal = bool(self.backend.split_special_tokens)
        return Fast(content, prefix=self.prefix, end=self.end, literal=literal).describe()


def load(folder: Path, transformers: Any) -> HuggingFace | None:
    """The tokenizer in a folder, if any."""
    if not any(next(folder.glob(pattern), None) for pattern in FILES):
        return None
    with refusing(f"{folder}: its tokenizer cannot be read", PretrainedError):
        backend = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        return HuggingFace(backend)


def convert(tokenizer: Tokenizer, length: int) -> Any:
    """A `PreTrainedTokenizerFast` with the same tokens, that `save_pretrained` writes and `AutoTokenizer` opens.

    Its `bos_token` is our prefix. Its `eos_token` is our end or, without one, a token that occurs in no text, or else
    the prefix. Neither is added to a text, and nothing in a text is taken for them.

    Args:
        length: the longest sequence, in tokens.
    """
    transformers = need("transformers", "transformers", "writing a tokenizer for transformers")
    if isinstance(tokenizer, HuggingFace):
        return tokenizer.backend
    with refusing("transformers cannot have this tokenizer", PretrainedError):
        backend, literal = _backend(tokenizer)
    end = tokenizer.end if tokenizer.end is not None else backend.token_to_id(END)
    first, last = (backend.id_to_token(i) for i in (tokenizer.prefix, tokenizer.prefix if end is None else end))
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=first,
        eos_token=last,
        split_special_tokens=literal,
        clean_up_tokenization_spaces=False,
        model_max_length=length,
    )


def save(tokenizer: Any, folder: Path) -> None:
    """Write a tokenizer that `convert` made.

    Reading it, transformers would make special tokens of bos and eos, and then leave line breaks out of decoded text,
    unless the config says that no tokens are to be added to those of `tokenizer.json`.
    """
    tokenizer.save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    config = files.read_json(file) | {"added_tokens_decoder": {}}
    files.write(file, json.dumps(config, indent=2, ensure_ascii=False) + "\n")


def _backend(tokenizer: Tokenizer) -> tuple[Any, bool]:
    """The tokenizer in the package `tokenizers`, and whether a special token spelt in a text is plain characters."""
    from tokenizers import Tokenizer as Backend

    if isinstance(tokenizer, Bytes):
        backend = _bytes(Backend)
    elif isinstance(tokenizer, Characters):
        backend = _characters(Backend, tokenizer)
    elif isinstance(tokenizer, Fast):
        backend = Backend.from_str(tokenizer.content)
    else:
        raise PretrainedError(
            f"transformers has no tokenizer like {tokenizer.kind}; it has those of "
            "bytes, characters and a tokenizer.json"
        )
    literal = not backend.get_added_tokens_decoder() or getattr(tokenizer, "literal", False)
    _add(backend, [tokenizer.prefix, backend.token_to_id(END) if tokenizer.end is None else tokenizer.end])
    return backend, literal


def _add(backend: Any, ids: Sequence[int | None]) -> None:
    """Register tokens as added tokens, which transformers requires of bos and eos.

    A token that occurs in texts must not be `special`, or decoding would leave it out. A text is then searched for the
    token's spelling, so that a letter Ċ that stands alone is taken for GPT-2's line break.
    """
    from tokenizers import AddedToken

    added = backend.get_added_tokens_decoder()
    for token in ids:
        if token is None or token in added:
            continue
        text = backend.decode([token], skip_special_tokens=False)
        ordinary = token in backend.encode(text, add_special_tokens=False).ids
        name = backend.id_to_token(token)
        entry = AddedToken(name, special=not ordinary, normalized=False, single_word=ordinary and name != text)
        (backend.add_tokens if ordinary else backend.add_special_tokens)([entry])


def _bytes(backend: type) -> Any:
    """Byte-level BPE without merges, whose ids are the bytes.

    The normalizer spells bytes as characters, but leaves line breaks alone: texts are searched for the bos token before
    that, and if it were spelt `Ċ`, as in GPT-2, a text with this letter would be misread.
    """
    from tokenizers import decoders, models, normalizers

    vocabulary = {{10: "\n", UNUSED: END}.get(byte, _spelling(byte)): byte for byte in range(256)}
    made = backend(models.BPE(vocab=vocabulary, merges=[]))
    made.normalizer = normalizers.Sequence([normalizers.ByteLevel(), normalizers.Replace(_spelling(10), "\n")])
    made.decoder = decoders.ByteLevel()
    return made


def _spelling(byte: int) -> str:
    """A byte in GPT-2's spelling: itself if it is printable, others from U+0100 on."""
    unprinted = [*range(33), *range(127, 161), 173]
    return chr(256 + unprinted.index(byte)) if byte in unprinted else chr(byte)


def _characters(backend: type, tokenizer: Characters) -> Any:
    """One word per character."""
    from tokenizers import Regex, decoders, models, pre_tokenizers

    made = backend(models.WordLevel({character: i for i, character in enumerate(tokenizer.characters)}))
    made.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    made.decoder = decoders.Fuse()
    return made
