"""TODO reformer."""

from zoo.architectures import register
from zoo.mixers.reformer import Reformer
from zoo.types import Part, Recipe


@register(
    family="efficient attention",
    paper="Kitaev et al. 2020, Reformer: The Efficient Transformer, arXiv:2001.04451",
    source="https://github.com/google/trax (trax/layers/research/efficient_attention.py, trax/models/reformer)",
    deviations=(
        "rotations stay as drawn unless redraw() is called, one set for each head; the official code draws them for "
        "each example, head and call",
        "the default number of buckets follows the length the model was built for; officially, the input's length",
        "padding (any length, rows of a batch) stands behind all buckets and outside the ring of chunks, so that it "
        "changes no output; in the official code a round's first chunk may look back at a chunk of padding",
        "a step's score for itself is -5e4, as in the paper's first code and reformer-pytorch; trax subtracts 1e5",
        "steps in sight may be of other buckets, as in trax, transformers and reformer-pytorch; the paper's eq. 4 "
        "hides other buckets, which across_buckets=False does",
        "chunks of 64 steps, as in transformers (trax: 128); 4 rounds of hashing, as in the paper's enwik8 runs",
        "the reversible streams are kept for the backward pass, not recomputed, and the feed-forward is not chunked",
        "positions are learned, not axial; GELU and initialisation are pre_ln's",
        "resumption and incremental decoding, which trax approximates, are not offered",
    ),
)
def reformer(
    *,
    heads: int = 4,
    chunk: int = 64,
    buckets: int | list[int] | None = None,
    hashes: int = 4,
    across_buckets: bool = True,
    duplicates: bool = True,
) -> Recipe:
    """Reversible transformer that attends within locality-sensitive hash buckets; its causal mask leaks a little."""
    own = {"chunk": chunk, "buckets": buckets, "hashes": hashes}
    return Recipe(
        mixer=Part(Reformer, heads=heads, across_buckets=across_buckets, duplicates=duplicates, **own),
        residual="reversible",
        positions="learned",
        width_multiple=heads,
    )
