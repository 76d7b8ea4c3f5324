"""Transformers whose attention costs time linear in the sequence."""

from typing import Literal

from zoo.architectures import register
from zoo.types import Part, Recipe


@register(
    paper="Wang et al. 2020, Linformer: Self-Attention with Linear Complexity, arXiv:2006.04768",
    source="https://github.com/facebookresearch/fairseq (examples/linformer)",
    deviations=(
        "layerwise sharing (one E for all layers) is not offered: a mixer owns its parameters",
        "k is 64 by default, or the length where that is less; the paper uses 128 and 256 for n = 512",
        "residual type, GELU and initialisation (but for E and F, which follow the official code) are pre_ln's",
    ),
)
def linformer(
    *, heads: int = 4, k: int | None = None, sharing: Literal["none", "headwise", "key_value"] = "headwise"
) -> Recipe:
    """Transformer that attends to k learned summaries of its keys and values; never causal."""
    return Recipe(
        mixer=Part("linformer", heads=heads, k=k, sharing=sharing),
        residual="pre",
        positions="learned",
        width_multiple=heads,
    )


@register(
    paper="Choromanski et al. 2021, Rethinking Attention with Performers, arXiv:2009.14794",
    source="https://github.com/google-research/google-research (performer/fast_attention/jax/fast_attention.py)",
    deviations=(
        "causal: keys take no stabiliser. The official maximum over the whole sequence lets the future in through ε",
        "ε is 1e-4, the default of the official feature map and performer-pytorch's constant; the official layer "
        "passes 1e-6, and adds 2e-6 to a normaliser below 1e-6, which we do not",
        "the maximum is a constant for the gradient, as in performer-pytorch; the official code differentiates it",
        "random features stay as drawn unless redraw() is called; the official code redraws at each call, from the "
        "queries, and performer-pytorch every 1000 calls in training",
        "orthogonal blocks are made uniform (signs of R folded into Q); the official code takes Q as LAPACK returns it",
        "kernel='relu' projects by orthogonal features and scales by d^(-1/4), as performer-pytorch does; the official "
        "default there has no projection and no scale",
        "int(d ln d) features by default, as in performer-pytorch; the official code takes 256",
        "residual type, GELU and initialisation are pre_ln's",
    ),
)
def performer(*, heads: int = 4, features: int | None = None, kernel: Literal["softmax", "relu"] = "softmax") -> Recipe:
    """Transformer whose softmax attention is approximated by positive orthogonal random features (FAVOR+)."""
    return Recipe(
        mixer=Part("performer", heads=heads, features=features, kernel=kernel),
        residual="pre",
        positions="learned",
        width_multiple=heads,
    )


@register(
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
        mixer=Part("reformer", heads=heads, across_buckets=across_buckets, duplicates=duplicates, **own),
        residual="reversible",
        positions="learned",
        width_multiple=heads,
    )


@register(
    paper="Xiong et al. 2021, Nyströmformer: A Nyström-Based Algorithm for Approximating Self-Attention, "
    "arXiv:2102.03902",
    source="https://github.com/mlpen/Nystromformer (code/attention_nystrom.py)",
    deviations=(
        "init_option is 'exact' by default, the paper's ||A||_1 of each matrix; the official default divides by the "
        "largest of the batch, so that an output depends on what stands beside it",
        "segments divide the valid steps of a row, and lengths that are no multiple of num_landmarks are taken as they "
        "are; the official code has one fixed length, padding included in its segments' means",
        "rows of at most num_landmarks steps have full softmax attention; the official code, at exactly that length",
        "residual type, GELU and initialisation (but for the convolution's, PyTorch's) are pre_ln's",
    ),
)
def nystromformer(
    *,
    heads: int = 4,
    num_landmarks: int = 64,
    conv_kernel_size: int | None = 65,
    init_option: Literal["exact", "original"] = "exact",
) -> Recipe:
    """Transformer whose softmax attention goes through landmarks and a pseudo-inverse; never causal."""
    own = {"num_landmarks": num_landmarks, "conv_kernel_size": conv_kernel_size, "init_option": init_option}
    return Recipe(
        mixer=Part("nystromformer", heads=heads, **own),
        residual="pre",
        positions="learned",
        width_multiple=heads,
    )


@register(
    paper="Tay et al. 2021, Synthesizer: Rethinking Self-Attention for Transformer Models, arXiv:2005.00743",
    source="https://github.com/tensorflow/mesh (mesh_tensorflow/transformer/attention.py, synthetic_attention)",
    deviations=(
        "dense: W_1 gives each head its d hidden units and W_2 is one for all heads, as in both official codes; the "
        "paper writes a layer of D hidden units for each head",
        "the code of long-range-arena reshapes dense scores without transposing heads and time, which mixes the two; "
        "we follow mesh and the paper",
        "projections have biases, as in long-range-arena; mesh has none",
        "factorized_dense is in neither official code: every pair of entries of A and B gives a score, as the paper's "
        "text asks for, which its two plain tilings would not; the length need not be a multiple of b",
        "a dot product mixed in is scaled by 1/sqrt(d); mesh folds that into the initial queries",
        "residual type, GELU and initialisation (but for the tables, Glorot's as in mesh) are pre_ln's",
    ),
)
def synthesizer(
    *,
    heads: int = 4,
    variant: Literal["dense", "factorized_dense", "random", "factorized_random"] = "dense",
    dot: Literal["none", "plus", "alpha"] = "none",
    rank: int = 32,
    learned: bool = True,
) -> Recipe:
    """Transformer whose attention scores come from each step alone, or from a table, without dot products."""
    return Recipe(
        mixer=Part("synthesizer", heads=heads, variant=variant, dot=dot, rank=rank, learned=learned),
        residual="pre",
        positions="learned",
        width_multiple=heads,
    )
