"""TODO bigbird."""

from zoo.architectures import register
from zoo.mixers.bigbird import BigBird
from zoo.types import Part, Recipe


@register(
    family="efficient attention",
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
        mixer=Part(BigBird, heads=heads, block_size=block_size, random_blocks=random_blocks),
        residual="pre",
        positions="learned",
        width_multiple=heads,
    )
