"""Other people's implementations on PyPI (extra `oracles`), each as a module from Batch to logits.

A peer runs as its package has it, in fp32, at our width, depth and heads; those that are made for GPUs run on these
alone, in our precision. Where its feed-forward layer has a free width, that is chosen so that both models have the
same number of parameters.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from harness import machine
from harness.bench.subject import CLASSES, VOCAB, Subject
from harness.version import installed
from zoo.types import Batch, Role

HEADS = 4
TOLERANCE = 0.05
"""How far the parameters of two models may be apart to be compared."""


@dataclass(frozen=True)
class Peer:
    """An implementation to measure beside ours."""

    package: str
    """On PyPI."""
    implements: tuple[str, ...]
    """Names of our architectures."""
    build: Callable[[Subject], nn.Module]
    role: Role = "lm"
    has_hidden: bool = False
    """Whether `Subject.hidden` changes it."""
    options: dict[str, Any] = field(default_factory=dict)
    """The options with which ours is the same model."""
    gpu: bool = False
    """Whether it is made for GPUs."""

    @property
    def installed(self) -> str | None:
        """The installed version."""
        return installed(self.package)


class _Model(nn.Module):
    """A peer as a module from Batch to logits."""

    def __init__(self, inner: nn.Module, read: Callable[[Any, Tensor], Tensor] = lambda m, x: m(x)) -> None:
        super().__init__()
        self.inner, self.read = inner, read

    def forward(self, batch: Batch) -> Tensor:
        """Logits of the batch."""
        return self.read(self.inner, batch.inputs)


class _Encoder(nn.Module):
    """Token and position tables, an encoder, and a linear head over the mean of its outputs."""

    def __init__(self, s: Subject, encoder: nn.Module) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(VOCAB, s.width), nn.Embedding(s.length, s.width)
        self.encoder, self.head = encoder, nn.Linear(s.width, CLASSES)

    def forward(self, batch: Batch) -> Tensor:
        """Logits of the batch."""
        x = self.tokens(batch.inputs) + self.positions.weight
        return self.head(self.encoder(x).mean(1))


def _config(s: Subject) -> dict[str, Any]:
    """Sizes as configs of transformers call them."""
    return {"vocab_size": VOCAB, "hidden_size": s.width, "num_hidden_layers": s.layers}


def _transformers(s: Subject, kind: str, **options: Any) -> nn.Module:
    """A causal language model of transformers."""
    import transformers

    config = getattr(transformers, f"{kind}Config")(**_config(s), **options)
    model = getattr(transformers, f"{kind}ForCausalLM")(config)
    return _Model(model, lambda model, tokens: model(input_ids=tokens, use_cache=False).logits)


def _llama(s: Subject) -> nn.Module:
    hidden = s.hidden or s.width * 8 // 3
    sizes = {"intermediate_size": hidden, "num_attention_heads": HEADS, "max_position_embeddings": s.length}
    return _transformers(s, "Llama", **sizes)


def _mamba2(s: Subject) -> nn.Module:
    sizes = {"state_size": 128, "expand": 2, "num_heads": 2 * s.width // 64, "head_dim": 64}
    return _transformers(s, "Mamba2", **sizes, n_groups=1, chunk_size=64)


def _rwkv4(s: Subject) -> nn.Module:
    sizes = {"attention_hidden_size": s.width, "intermediate_size": s.hidden or 4 * s.width}
    return _transformers(s, "Rwkv", context_length=s.length, **sizes)


def _fla(s: Subject, kind: str) -> nn.Module:
    """A causal language model of flash-linear-attention."""
    from fla import models

    sizes: dict[str, dict[str, Any]] = {
        "GatedDeltaNet": {"num_heads": HEADS, "head_dim": 3 * s.width // (4 * HEADS)},
        "RWKV6": {"num_heads": s.width // 32, "expand_k": 1.0},
        "RWKV7": {"head_dim": 32},
    }
    hidden = {"intermediate_size": s.hidden or 4 * s.width}
    config = getattr(models, f"{kind}Config")(**_config(s), **hidden, **sizes.get(kind, {"num_heads": HEADS}))
    model = getattr(models, f"{kind}ForCausalLM")(config)
    return _Model(model, lambda model, tokens: model(input_ids=tokens, use_cache=False).logits)


def _mamba_ssm(s: Subject, layer: str) -> nn.Module:
    from mamba_ssm.models.config_mamba import MambaConfig
    from mamba_ssm.models.mixer_seq_simple import MambaLMHeadModel

    # Mamba-2 asks for causal-conv1d unless it is told to do without
    options = {"use_mem_eff_path": find_spec("causal_conv1d") is not None} if layer == "Mamba2" else {}
    config = MambaConfig(s.width, 0, s.layers, VOCAB, ssm_cfg={"layer": layer} | options, tie_embeddings=False)
    return _Model(MambaLMHeadModel(config), lambda model, tokens: model(tokens).logits)


def _sizes(s: Subject) -> dict[str, int]:
    """As several packages call them."""
    return {"dim": s.width, "depth": s.layers, "heads": HEADS}


def _x_transformers(s: Subject) -> nn.Module:
    from x_transformers import Decoder, TransformerWrapper

    hidden = (s.hidden or 4 * s.width) / s.width
    layers = Decoder(**_sizes(s), attn_dim_head=s.width // HEADS, attn_flash=True, ff_mult=hidden)
    return _Model(TransformerWrapper(num_tokens=VOCAB, max_seq_len=s.length, attn_layers=layers))


def _mambapy(s: Subject) -> nn.Module:
    # mambapy.lm, its own language model, imports mamba_ssm, which a CPU cannot have.
    from mambapy.mamba import Mamba, MambaConfig, RMSNorm

    config = MambaConfig(d_model=s.width, n_layers=s.layers)
    tokens, head = nn.Embedding(VOCAB, s.width), nn.Linear(s.width, CLASSES, bias=False)
    model = nn.Sequential(tokens, Mamba(config), RMSNorm(s.width, config.rms_norm_eps), head)
    return _Model(model)


def _performer(s: Subject) -> nn.Module:
    from performer_pytorch import PerformerLM

    # with a table of positions, as ours has
    options = {"dim_head": s.width // HEADS, "causal": True, "rotary_position_emb": False}
    return _Model(PerformerLM(num_tokens=VOCAB, max_seq_len=s.length, **_sizes(s), **options))


def _performer_encoder(s: Subject) -> nn.Module:
    from performer_pytorch import Performer

    return _Encoder(s, Performer(**_sizes(s), dim_head=s.width // HEADS, causal=False))


def _linformer(s: Subject) -> nn.Module:
    from linformer import Linformer

    return _Encoder(s, Linformer(**_sizes(s), seq_len=s.length, k=64))


def _reformer(s: Subject) -> nn.Module:
    from reformer_pytorch import ReformerLM

    options = {"dim_head": s.width // HEADS, "causal": True, "absolute_position_emb": True}
    hashing = {"bucket_size": 64, "n_hashes": 4}
    return _Model(ReformerLM(num_tokens=VOCAB, max_seq_len=s.length, **_sizes(s), **options, **hashing))


def _longformer(s: Subject) -> nn.Module:
    from transformers import LongformerConfig, LongformerModel

    config = LongformerConfig(
        **_config(s),
        intermediate_size=s.hidden or 4 * s.width,
        num_attention_heads=HEADS,
        attention_window=64,
        max_position_embeddings=s.length + 2,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=0,
    )
    body = LongformerModel(config, add_pooling_layer=False)
    inner = nn.ModuleDict({"body": body, "head": nn.Linear(s.width, CLASSES)})

    def read(inner: Any, tokens: Tensor) -> Tensor:
        globally = torch.zeros_like(tokens)
        globally[:, 0] = 1
        # Its padding is token 0, which ours are free to be: positions are given, so that it does not guess them.
        ids = torch.arange(2, tokens.shape[1] + 2, device=tokens.device).expand_as(tokens)
        hidden = inner["body"](input_ids=tokens, global_attention_mask=globally, position_ids=ids).last_hidden_state
        return inner["head"](hidden.mean(1))

    return _Model(inner, read)


def _xlstm(s: Subject, *, scalar: bool) -> nn.Module:
    import xlstm

    blocks: dict[str, Any] = {"mlstm_block": xlstm.mLSTMBlockConfig()}
    if scalar:
        layer = xlstm.sLSTMLayerConfig(backend="vanilla", num_heads=HEADS)
        ff = xlstm.FeedForwardConfig(proj_factor=1.3, act_fn="gelu", round_proj_up_to_multiple_of=1)
        blocks = {"slstm_block": xlstm.sLSTMBlockConfig(slstm=layer, feedforward=ff), "slstm_at": "all"}
    sizes = {"vocab_size": VOCAB, "context_length": s.length, "num_blocks": s.layers, "embedding_dim": s.width}
    return _Model(xlstm.xLSTMLMModel(xlstm.xLSTMLMModelConfig(**sizes, **blocks)))


def _torch_rnn(kind: type[nn.LSTM] | type[nn.GRU], s: Subject) -> nn.Module:
    def read(parts: Any, tokens: Tensor) -> Tensor:
        embedding, rnn, head = parts
        return head(rnn(embedding(tokens))[0])

    rnn = kind(s.width, s.width, s.layers, batch_first=True)
    return _Model(nn.ModuleList([nn.Embedding(VOCAB, s.width), rnn, nn.Linear(s.width, CLASSES)]), read)


_TRANSFORMERS = ("pre_ln", "transformer_pp")
PEERS = {
    "transformers Llama": Peer("transformers", _TRANSFORMERS, _llama, has_hidden=True),
    "x-transformers": Peer("x-transformers", _TRANSFORMERS, _x_transformers, has_hidden=True),
    "transformers Mamba-2": Peer("transformers", ("mamba2",), _mamba2, options={"headdim": 64}),
    "mambapy": Peer("mambapy", ("mamba",), _mambapy),
    "transformers RWKV-4": Peer("transformers", ("rwkv4",), _rwkv4, has_hidden=True),
    "performer-pytorch, causal": Peer("performer-pytorch", ("performer",), _performer),
    "performer-pytorch, not causal": Peer("performer-pytorch", ("performer",), _performer_encoder, role="classify"),
    "linformer": Peer("linformer", ("linformer",), _linformer, role="classify", options={"k": 64}),
    "reformer-pytorch": Peer("reformer-pytorch", ("reformer",), _reformer),
    "transformers Longformer": Peer(
        "transformers", ("longformer",), _longformer, role="classify", has_hidden=True, options={"window": 64}
    ),
    "xlstm, mLSTM": Peer("xlstm", ("mlstm",), partial(_xlstm, scalar=False)),
    "xlstm, sLSTM": Peer("xlstm", ("slstm",), partial(_xlstm, scalar=True)),
    "torch LSTM": Peer("torch", ("lstm",), partial(_torch_rnn, nn.LSTM)),
    "torch GRU": Peer("torch", ("gru",), partial(_torch_rnn, nn.GRU)),
    "mamba-ssm Mamba": Peer("mamba-ssm", ("mamba",), partial(_mamba_ssm, layer="Mamba1"), gpu=True),
    "mamba-ssm Mamba-2": Peer(
        "mamba-ssm", ("mamba2",), partial(_mamba_ssm, layer="Mamba2"), options={"headdim": 64}, gpu=True
    ),
}
_FLA = {
    "gla": "GLA", "retnet": "RetNet", "delta_net": "DeltaNet", "gated_delta_net": "GatedDeltaNet", "rwkv6": "RWKV6",
    "rwkv7": "RWKV7",
}  # fmt: skip
PEERS |= {
    f"fla {kind}": Peer("flash-linear-attention", (name,), partial(_fla, kind=kind), has_hidden=True, gpu=True)
    for name, kind in _FLA.items()
}


def peers_of(name: str, role: Role) -> dict[str, Peer]:
    """The peers of an architecture in a role on this device, by name."""
    here = machine.pick().type == "cuda"
    found = {peer: about for peer, about in PEERS.items() if name in about.implements and about.role == role}
    return {peer: about for peer, about in found.items() if here or not about.gpu}


def match(subject: Subject) -> Subject:
    """The peer with the feed-forward width at which its parameters come nearest to `subject.params`."""
    peer = PEERS[subject.peer or ""]
    if not peer.has_hidden:
        return subject

    def count(hidden: int) -> int:
        model = dataclasses.replace(subject, hidden=hidden).build("cpu")
        return sum(p.numel() for p in model.parameters() if p.requires_grad)

    # Parameters are linear in the hidden width, so that two counts give the line.
    unit = subject.width
    each = (count(2 * unit) - count(unit)) / unit
    hidden = unit + round((subject.params - count(unit)) / each)
    return dataclasses.replace(subject, hidden=max(1, hidden))
