"""How fast language models answer multiple choice: lm_eval's own backend `hf` and ours, on the same random weights.

A model of the zoo is written as a transformers folder. The same requests, random tokens under contexts each with
four continuations, go to `hf` with that folder, to our adapter with that folder, and to our adapter with the model of
the zoo: seconds, medians of turns in which each goes once, and how far any log-likelihood is from that of `hf`. Then
some models of the zoo with every context read for each continuation, and once for all of them.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM
from rich.console import Console
from rich.table import Table

from harness.lm_eval import scoring
from harness.lm_eval.adapter import Zoobench
from zoo.build import build
from zoo.contract import Model, Shape
from zoo.published import export, load
from zoo.tokenizers import Bytes

LENGTH, WIDTH, DEPTH = 256, 128, 4
RECURRENT = ("pre_ln", "lstm", "mamba", "mamba2", "rwkv4", "rwkv7", "gated_delta_net", "s4d", "h3")
Request = tuple[tuple[str, str], list[int], list[int]]


def questions(count: int, vocab: int) -> list[Request]:
    """`count` contexts of 30 to 90 tokens with four continuations of 1 to 12 each."""
    generator = torch.Generator().manual_seed(0)

    def tokens(low: int, high: int) -> list[int]:
        length = int(torch.randint(low, high + 1, (), generator=generator))
        return torch.randint(vocab, (length,), generator=generator).tolist()

    contexts = [tokens(30, 90) for _ in range(count)]
    return [(("", ""), context, tokens(1, 12)) for context in contexts for _ in range(4)]


def model(name: str, vocab: int) -> Model:
    torch.manual_seed(0)
    made = build(name, "lm", shape=Shape(length=LENGTH, outputs=vocab, vocab=vocab, width=WIDTH, depth=DEPTH)).eval()
    made.tokenizer = Bytes()
    return made


def seconds(runs: dict[Any, Callable[[], Any]], turns: int) -> dict[Any, float]:
    """The median of each; one turn before is not counted."""
    spent: dict[Any, list[float]] = {name: [] for name in runs}
    for turn in range(turns + 1):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            if turn:
                spent[name].append(time.perf_counter() - began)
    return {name: float(torch.tensor(times).median()) for name, times in spent.items()}


def against_hf(name: str, vocab: int, asked: Sequence[Request], sizes: Sequence[int], turns: int) -> Table:
    """Seconds of each backend by batch size; 0 is ours by tokens."""
    ours = model(name, vocab)
    with tempfile.TemporaryDirectory() as folder:
        export(ours, folder, "transformers")
        made: dict[Any, Any] = {}
        for size in sizes:
            if size:
                made["hf", size] = HFLM(pretrained=folder, device="cpu", batch_size=size)
            made["zoobench, their modules", size] = Zoobench(
                model=load(folder, kind="transformers"), device="cpu", batch_size=size or None
            )
            made["zoobench, our modules", size] = Zoobench(model=ours, device="cpu", batch_size=size or None)
    found = {key: lm._loglikelihood_tokens(asked, disable_tqdm=True) for key, lm in made.items()}
    wanted = found["hf", next(size for size in sizes if size)]
    spent = seconds(
        {key: partial(lm._loglikelihood_tokens, asked, disable_tqdm=True) for key, lm in made.items()}, turns
    )
    table = Table(title=f"{name}, width {WIDTH}, depth {DEPTH}, {vocab} tokens: seconds for {len(asked)} requests")
    for column in ("backend", *(f"batch of {size}" if size else "by tokens" for size in sizes), "largest difference"):
        table.add_column(column, justify="left" if column == "backend" else "right")
    for backend in dict.fromkeys(backend for backend, _ in made):
        apart = max(
            abs(a - b)
            for (other, _), values in found.items()
            if other == backend
            for (a, _), (b, _) in zip(values, wanted, strict=True)
        )
        cells = [f"{spent[backend, size]:.2f}" if (backend, size) in spent else "–" for size in sizes]
        table.add_row(backend, *cells, f"{apart:.1e}")
    return table


def sharing(names: Sequence[str], asked: Sequence[Request], vocab: int, turns: int) -> Table:
    """Seconds with each context read for every continuation, and read once."""
    table = Table(title=f"contexts of four continuations: seconds for {len(asked)} requests")
    for column in ("architecture", "each time", "once", "ratio"):
        table.add_column(column, justify="left" if column == "architecture" else "right")
    pairs = [(context, continuation) for _, context, continuation in asked]
    for name in names:
        made = model(name, vocab)
        ways = {way: partial(scoring.score, made, pairs, share_prefixes=way) for way in (False, True)}
        apart, once = seconds(ways, turns).values()
        table.add_row(name, f"{apart:.2f}", f"{once:.2f}", f"{apart / once:.2f}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=int, default=75)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 8, 32, 0], help="batch sizes; 0: by tokens")
    parser.add_argument("--architectures", nargs="+", default=["gpt2", "transformer_pp"])
    asked = parser.parse_args()
    torch.set_num_threads(1)
    console = Console()
    for name in asked.architectures:
        for vocab in (256, 8192):
            console.print(against_hf(name, vocab, questions(asked.questions, vocab), asked.sizes, asked.turns))
    console.print(sharing(RECURRENT, questions(asked.questions, 256), 256, asked.turns))


if __name__ == "__main__":
    main()
