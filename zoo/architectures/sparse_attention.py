"""Transformers that see only some positions, chosen by where they are (Sinkhorn: by a learned sorting of blocks)."""

from typing import Literal

from zoo.architectures import register
from zoo.types import Part, Recipe


@register(
    paper="Jiang et al. 2023, Mistral 7B, arXiv:2310.06825, section 2 (sliding window attention)",
    source="https://github.com/mistralai/mistral-src (one_file_ref.py); transformers, models/mistral",
    deviations=(
        "blocks, biases, learned positions and initialisation are pre_ln's, so that the two isolate the window; "
        "Mistral's are RMSNorm, SwiGLU and rotary positions, without biases (positions='rope' has those)",
        "the window is 64 by default, or the whole length where that is less; Mistral's is 4096",
        "as an encoder, which Mistral is not, window // 2 keys on each side besides the query itself",
        "as many heads of keys and values as of queries by default, where Mistral shares each among four",
    ),
)
def local(*, heads: int = 4, kv_heads: int | None = None, window: int | None = None) -> Recipe:
    """Transformer with sliding-window attention: each position sees itself and the window − 1 before it."""
    return Recipe(
        mixer=Part("local", heads=heads, kv_heads=kv_heads, window=window),
        residual="pre",
        positions="learned",
        width_multiple=heads,
    )


@register(
    paper="Beltagy et al. 2020, Longformer: The Long-Document Transformer, arXiv:2004.05150",
    source="https://github.com/allenai/longformer; transformers, models/longformer",
    deviations=(
        "the window is counted as transformers does, both sides together without the query; allenai/longformer counts "
        "one side. It is 64 by default, where the models have 512",
        "the first tokens are the global ones; the official task models also choose others (all tokens of a question)",
        "causal: one side of the window and no global tokens, as the paper's language models and the official "
        "autoregressive=True; windows do not grow from layer to layer, and there is no dilation",
        "global projections start as copies of the local ones (paper); transformers draws them apart",
        "a masked query sees itself instead of giving zeros",
        "residual type, GELU and initialisation are pre_ln's",
    ),
)
def longformer(*, heads: int = 4, window: int | None = None, global_tokens: int = 1) -> Recipe:
    """Transformer with a sliding window and a few global tokens that see, and are seen by, all others."""
    return Recipe(
        mixer=Part("longformer", heads=heads, window=window, global_tokens=global_tokens),
        residual="pre",
        positions="learned",
        width_multiple=heads,
    )


@register(
    paper="Zaheer et al. 2020, Big Bird: Transformers for Longer Sequences, arXiv:2007.14062",
    source="https://github.com/google-research/bigbird (core/attention.py); transformers, models/big_bird",
    deviations=(
        "internal construction (ITC) only: the first and last block are global, no tokens are added",
        "sequences are padded to the length the model was built for, not to a multiple of the block, so that outputs "
        "do not depend on padding; of a shorter one, the last global block is padding",
        "full attention where that length is at most 2r + 5 blocks; the official code decides by the input",
        "random blocks follow the official code, which takes them from the first 2r + 5 blocks only, not the paper, "
        "where they may lie anywhere; the special plans for 1024, 3072 and 4096 tokens are left out",
        "the plan is the same in training and evaluation, as in google-research/bigbird; transformers, when "
        "evaluating, takes the first block for all random ones",
        "blocks of 8 by default, where the official 64 would be full attention up to 704 tokens",
        "residual type, GELU and initialisation are pre_ln's",
    ),
)
def bigbird(*, heads: int = 4, block_size: int = 8, random_blocks: int = 3) -> Recipe:
    """Transformer whose blocks of tokens see their neighbours, the first and last block and random ones; not causal."""
    return Recipe(
        mixer=Part("bigbird", heads=heads, block_size=block_size, random_blocks=random_blocks),
        residual="pre",
        positions="learned",
        width_multiple=heads,
    )


@register(
    paper="Tay et al. 2020, Sparse Sinkhorn Attention, arXiv:2002.11296",
    source="https://github.com/lucidrains/sinkhorn-transformer (the authors published no code of this model)",
    deviations=(
        "scores pass log(relu(R) + 1e-6) before balancing, as in lucidrains; the paper balances exp(R)",
        "values of the sorted block are sorted values (paper); lucidrains 0.11.4 puts the sorted keys in their place",
        "Gumbel noise in training only; lucidrains draws it when evaluating too",
        "sort_net='simple' is the paper's network, here relu of one linear map of the summed queries and keys of a "
        "block (lucidrains); 'attention', parameter-free and lucidrains' default, is the alternative",
        "blocks of padding take no part in the sorting",
        "not causal: column sums over the blocks of a sequence let the future in; no SortCut, no local heads",
        "blocks of 16 tokens (paper); lucidrains has 64",
        "residual type, GELU and initialisation (but for the sorting network) are pre_ln's",
    ),
)
def sinkhorn(
    *,
    heads: int = 4,
    block_size: int = 16,
    sort_net: Literal["simple", "attention"] = "simple",
    temperature: float = 0.75,
    iterations: int = 5,
) -> Recipe:
    """Transformer whose blocks of tokens see themselves and one that a learned soft permutation brings; not causal."""
    return Recipe(
        mixer=Part(
            "sinkhorn",
            heads=heads,
            block_size=block_size,
            sort_net=sort_net,
            temperature=temperature,
            iterations=iterations,
        ),
        residual="pre",
        positions="learned",
        width_multiple=heads,
    )
