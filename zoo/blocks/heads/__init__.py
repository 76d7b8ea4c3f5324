"""The model of each role: an embedding, a backbone and a head."""

# ruff: noqa: F401  # what they are made of can be had from here too
from collections.abc import Callable

from zoo.blocks.heads.base import SequenceModel, make_head
from zoo.blocks.heads.classify import Classifier, Retriever
from zoo.blocks.heads.embedding import Embedding
from zoo.blocks.heads.lm import LanguageModel, MaskedLanguageModel
from zoo.blocks.heads.reconstruct import Reconstructor
from zoo.blocks.heads.seq2seq import EncoderDecoder, Seq2Seq, TwoStacks
from zoo.contract import Model, Recipe, Role, Shape

MODELS: dict[Role, Callable[[Recipe, Role, Shape], Model]] = {
    "lm": LanguageModel,
    "masked": MaskedLanguageModel,
    "classify": Classifier,
    "retrieve": Retriever,
    "seq2seq": Seq2Seq,
    "reconstruct": Reconstructor,
}
"""The model of each role; `EncoderDecoder` takes the place of `Seq2Seq` where a Recipe has cross attention."""
