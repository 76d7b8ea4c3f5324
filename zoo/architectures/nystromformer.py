"""TODO nystromformer."""

from typing import Literal

from zoo.architectures import register
from zoo.mixers.nystromformer import Nystromformer
from zoo.types import Part, Recipe


@register(
    family="efficient attention",
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
        mixer=Part(Nystromformer, heads=heads, **own),
        residual="pre",
        positions="learned",
        width_multiple=heads,
    )
