"""LSH attention: softmax attention among steps whose shared query-keys fall into neighbouring hash buckets."""

from zoo.ops.lsh_attention.chunked import lsh_attention
from zoo.ops.lsh_attention.naive import lsh_attention as lsh_attention_naive

__all__ = ["lsh_attention", "lsh_attention_naive"]
