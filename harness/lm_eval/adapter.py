"""A run, a published model or any `Model` as a model of lm-evaluation-harness (`lm_eval`).

`lm_eval --model zoobench --model_args run=…`, or `lm_eval.simple_evaluate(model=Zoobench(model=…))`. Requests are
answered as its backend `hf` would answer them for the same weights and tokenizer; the scores are made in `scoring`.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import CacheHook, TemplateLM
from tqdm import tqdm

from harness import device as machine
from harness.errors import UserError
from harness.external import digest
from harness.lm_eval import scoring
from harness.runs import open_model
from zoo import published
from zoo.contract import Model, Unsupported, device_of
from zoo.registry import nearest
from zoo.tokenizers import Tokenizer, TokenizerError

ARGUMENTS = ("run", "model", "results", "max_length", "batch_size", "device", "prefix_token_id", "precision")
"""The adapter's own; all others go to `zoo.load`."""
PRECISIONS = ("fp32", "bf16", "auto")
GENERATED = 256
"""Tokens that are generated where a task does not say how many; half of `max_length` where that is too short."""
TOGETHER = 256
"""Prompts between two entries into a cache of answers."""
ROWS = 64
"""Prompts of one length that are continued at once."""
CACHED = "zoobench: answers of"
"""The key under which a cache of answers keeps whose they are."""


class Zoobench(TemplateLM):
    """A language model that lm_eval can ask for everything: log-likelihoods, rolling ones, and continuations.

    Args:
        run: a run (path, id, or labels: see `harness.runs.find`), or what `zoo.load` opens.
        model: a `Model` with a tokenizer, or a name as for `run`.
        results: where runs lie; None for where zoobench puts them.
        max_length: the most tokens read at once; None for what the model was built or trained for. More only where the
            model has no longest sequence.
        batch_size: sequences at once, at most; None or "auto", and the 1 that lm_eval's command line takes for itself,
            for as many as a budget of tokens allows.
        max_batch_size: the same, beside "auto".
        device: where the model runs; None for CUDA where there is one, and for a given `Model` where that is.
        prefix_token_id: the token before a text that has nothing before it; None for the tokenizer's.
        precision: fp32, bf16 (matrix products), or auto: bf16 where the hardware has it.
        options: of `zoo.load`, for published weights: kind, tokenizer, strategy, …

    Raises:
        UserError: an argument that is unknown or cannot be, no such run, or a model that cannot be asked.
    """

    def __init__(
        self,
        run: str | None = None,
        model: Model | str | None = None,
        results: str | Path | None = None,
        max_length: int | None = None,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        device: str | torch.device | None = None,
        prefix_token_id: int | None = None,
        precision: str = "fp32",
        **options: Any,
    ) -> None:
        super().__init__()
        _check(options)
        if (run is None) == (model is None):
            raise UserError("say which model: run=… (a run, or what zoo.load opens), or model=…")
        if isinstance(run, float) or isinstance(model, float):
            raise UserError(f"lm_eval took {run or model} for a number; put it in quotes, or give the path of the run")
        wanted = run if model is None else model
        given = isinstance(wanted, Model)
        self.where = type(wanted).__name__ if given else str(wanted)
        root = None if results is None else Path(results)
        if given and options:
            raise UserError(f"a model that is open takes no {', '.join(options)}; options are for published weights")
        self.model: Model = wanted if isinstance(wanted, Model) else open_model(str(wanted), root, **options)
        self.model.eval()
        self.tokenizer: Tokenizer = _tokenizer(self.model, self.where)
        self._place(device, stay=given)
        if precision not in PRECISIONS:
            raise UserError(f"precision {precision!r}{nearest(str(precision), PRECISIONS)}")
        self.precision = machine.resolve_precision(precision, self._device)
        self.max_length = _length(max_length, self.model)
        self.batch_size = _batch_size(batch_size, max_batch_size)
        self._prefix = self.tokenizer.prefix if prefix_token_id is None else int(prefix_token_id)
        vocab = self.model.shape.vocab or 0
        if not 0 <= self._prefix < vocab:
            raise UserError(f"prefix_token_id {self._prefix} is none of the model's {vocab} tokens")

    def _place(self, device: str | torch.device | None, *, stay: bool) -> None:
        try:
            own = device_of(self.model) if device is None and stay else None
            self._device = own or torch.device(device or machine.pick())
            self.model.to(self._device)
        except (RuntimeError, AssertionError) as error:
            raise UserError(f"device {str(device)!r}: {str(error).splitlines()[0]}") from None

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: dict[str, Any] | None = None) -> Zoobench:
        _one_line_errors()
        return super().create_from_arg_string(arg_string, _said(additional_config))

    @classmethod
    def create_from_arg_obj(cls, arg_dict: dict[str, Any], additional_config: dict[str, Any] | None = None) -> Zoobench:
        _one_line_errors()
        return super().create_from_arg_obj(arg_dict, _said(additional_config))

    # tokens

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text; of a model that was never shown an end, the one before a text."""
        return self._prefix if self.tokenizer.end is None else self.tokenizer.end

    @property
    def prefix_token_id(self) -> int:
        return self._prefix

    @property
    def tokenizer_name(self) -> str:
        """Names the tokenizer by what it is; caches of tokenized requests go by it."""
        try:
            described = json.dumps(self.tokenizer.describe(), sort_keys=True)
        except ValueError:  # one of transformers' that is written in Python
            described = f"{self.where} {self.tokenizer.vocab}"
        return f"{self.tokenizer.kind}-{hashlib.sha256(described.encode()).hexdigest()[:12]}"

    def tok_encode(
        self,
        string: str,
        add_special_tokens: bool | None = None,
        left_truncate_len: int | None = None,
        **kwargs: Any,
    ) -> list[int]:
        """The tokens of a text; without special ones around them where it begins with the prefix already.

        Raises:
            UserError: a character that has no token.
        """
        prefix = self.tokenizer.decode([self._prefix])
        if add_special_tokens is None and prefix and string.startswith(prefix):
            add_special_tokens = False
        try:
            tokens = self.tokenizer.encode(string, special=add_special_tokens)
        except TokenizerError as error:
            begins = string if len(string) <= 40 else string[:40] + "…"
            raise UserError(f"{error} (in the request {begins!r})") from None
        return tokens[-left_truncate_len:] if left_truncate_len else tokens

    def tok_decode(self, tokens: int | Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of tokens, without the one that ends a text unless it is wanted."""
        tokens = [tokens] if isinstance(tokens, int) else list(tokens)
        return self.tokenizer.decode([t for t in tokens if not (skip_special_tokens and t == self.tokenizer.end)])

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """As every `TemplateLM` does, and where that leaves nothing to read or to score, each text by itself."""
        before, after = super()._encode_pair(context, continuation)
        if continuation and not after:  # it ends inside a token of the context
            after = self.tok_encode(continuation, add_special_tokens=False)
        return before or [self._prefix], after

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """There is none.

        Raises:
            UserError: always.
        """
        raise UserError("this model has no chat template; run the task without --apply_chat_template")

    # log-likelihoods

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Log-likelihoods in nats, and whether greedy decoding gives the same; (0, true) for nothing after nothing."""
        asked = [request for request in requests if request.args != ("", "")]
        found = iter(super().loglikelihood(asked, disable_tqdm=disable_tqdm))
        return [next(found) if request.args != ("", "") else (0.0, True) for request in requests]

    def _loglikelihood_tokens(
        self,
        requests: list[tuple[tuple[str, str], list[int], list[int]]],
        disable_tqdm: bool = False,
        **kwargs: Any,
    ) -> list[tuple[float, bool]]:
        def found(index: int, score: scoring.Score) -> None:
            self.cache_hook.add_partial("loglikelihood", requests[index][0], score)

        return self._score([(context, after) for _, context, after in requests], found, disable_tqdm)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihoods of whole texts in nats, in windows of `max_length` with one token of context."""

        def found(index: int, score: scoring.Score) -> None:
            self.cache_hook.add_partial("loglikelihood_rolling", requests[index].args, score[0])

        texts = [([self._prefix], self.tok_encode(request.args[0])) for request in requests]
        return [value for value, _ in self._score(texts, found, disable_tqdm)]

    def _score(self, pairs: Sequence[scoring.Pair], found: scoring.Found, quiet: bool) -> list[scoring.Score]:
        def tell(index: int, score: scoring.Score) -> None:
            found(index, score)
            bar.update()

        with (
            tqdm(total=len(pairs), disable=quiet, desc="log-likelihoods") as bar,
            machine.autocast(self._device, self.precision),
        ):
            try:
                return scoring.score(
                    self.model, pairs, max_length=self.max_length, batch_size=self.batch_size, found=tell
                )
            except (Unsupported, ValueError) as error:
                raise UserError(f"{self.where}: {error}") from None

    # continuations

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Continuations, each cut before the first of its stop strings.

        What is drawn depends on torch's own seed, which lm_eval sets (`--seed`), and on a request's place.
        """
        texts = [""] * len(requests)
        groups: dict[_Wish, list[int]] = defaultdict(list)
        for index, request in enumerate(requests):
            groups[_Wish.of(request.args[1], self.max_length)].append(index)
        with tqdm(total=len(requests), disable=disable_tqdm, desc="continuations") as bar:
            for wish, indices in groups.items():
                prompts = {index: self._prompt(requests[index].args[0], wish.tokens) for index in indices}
                indices.sort(key=lambda index: -len(prompts[index]))
                for batch in _chunks(indices, TOGETHER):
                    made = self._continue({index: prompts[index] for index in batch}, wish)
                    for index, text in zip(batch, made, strict=True):
                        texts[index] = text
                        self.cache_hook.add_partial("generate_until", requests[index].args, text)
                    bar.update(len(batch))
        return texts

    def _prompt(self, context: str, room: int) -> list[int]:
        """The end of a context that leaves room for what is generated; all a model reads, where it has no longest."""
        length = self.max_length - room
        if length < 1 and self.model.longest is not None:
            raise UserError(f"max_gen_toks={room} must be less than the {self.max_length} tokens this model can read")
        tokens = self.tok_encode(context) or [self._prefix]
        return tokens[-(length if length > 0 else self.max_length) :]

    def _continue(self, prompts: dict[int, list[int]], wish: _Wish) -> list[str]:
        from zoo.generate import continue_batch

        end = self.tokenizer.end
        stops = [*wish.until, self.tokenizer.decode([end])] if end is not None else list(wish.until)
        stops = [stop for stop in stops if stop]
        reach = max((len(stop.encode()) for stop in stops), default=0) + 4  # the first of them may be half a character

        def done(row: int, written: list[int]) -> bool:
            text = self.tokenizer.decode(written[-reach:]) if stops else ""
            return any(stop in text for stop in stops)

        with machine.autocast(self._device, self.precision):
            try:
                made = continue_batch(
                    self.model,
                    list(prompts.values()),
                    tokens=wish.tokens,
                    temperature=wish.temperature,
                    top_k=wish.top_k,
                    top_p=wish.top_p,
                    seed=[(torch.initial_seed() + index) % 2**63 for index in prompts],
                    done=done,
                    rows=self.batch_size or ROWS,
                )
            except ValueError as error:
                raise UserError(f"{self.where}: {error}") from None
        return [self._text(tokens, stops) for tokens in made]

    def _text(self, tokens: list[int], stops: list[str]) -> str:
        """What was generated before the end of the text and the first stop string."""
        if self.tokenizer.end in tokens:
            tokens = tokens[: tokens.index(self.tokenizer.end)]
        text = self.tokenizer.decode(tokens)
        return text[: min((text.find(stop) for stop in stops if stop in text), default=len(text))]

    # what is written down

    @cached_property
    def weights(self) -> str:
        """A hash of all parameters and buffers."""
        return digest(self.model)

    def get_model_info(self) -> dict[str, Any]:
        """What lm_eval writes beside the results."""
        some = next(self.model.parameters(), torch.empty(0))
        return {
            "model_num_parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "model_dtype": str(some.dtype),
            "model_revision": self.model.built.get("architecture", type(self.model).__name__),
            "model_sha": self.weights,
            "model_where": self.where,
            "model_max_length": self.max_length,
            "model_precision": self.precision,
            "model_tokenizer": self.tokenizer_name,
        }

    def set_cache_hook(self, cache_hook: CacheHook) -> None:
        """Use a cache of answers (`use_cache`), whose keys do not say whose they are: it keeps that beside them.

        Raises:
            UserError: another model, or this one under other settings, wrote it.
        """
        if cache_hook.dbdict is not None:
            own = f"{self.weights} {self.tokenizer_name} {self.max_length} {self._prefix} {self.precision}"
            other = cache_hook.dbdict.get(CACHED, "" if len(cache_hook.dbdict) else own)
            if other != own:
                raise UserError(
                    "this cache holds answers of another model or other settings; give use_cache a new path"
                )
            cache_hook.dbdict[CACHED] = own
        super().set_cache_hook(cache_hook)


@dataclass(frozen=True)
class _Wish:
    """How a task wants its continuations."""

    until: tuple[str, ...]
    tokens: int
    temperature: float
    top_k: int | None
    top_p: float | None

    @classmethod
    def of(cls, options: dict[str, Any], length: int) -> _Wish:
        """From lm_eval's `generation_kwargs`.

        Raises:
            UserError: an option that is not known here.
        """
        rest = dict(options)
        until = rest.pop("until", None) or ()
        default = GENERATED if length > GENERATED else max(1, length // 2)
        counts = [rest.pop(key, None) for key in ("max_gen_toks", "max_new_tokens", "max_tokens")]
        tokens = next((int(count) for count in counts if count is not None), default)
        sample, temperature = rest.pop("do_sample", None), rest.pop("temperature", None)
        heat = (1.0 if sample else 0.0) if temperature is None else float(temperature)
        top_k, top_p = rest.pop("top_k", None), rest.pop("top_p", None)
        if rest.pop("num_beams", 1) != 1:
            raise UserError("num_beams: continuations are made one token after another, without a beam")
        for name in rest:
            known = ("until", "max_gen_toks", "do_sample", "temperature", "top_k", "top_p")
            raise UserError(f"generation_kwargs: unknown option {name!r}{nearest(name, known)}")
        if tokens < 1:
            raise UserError(f"max_gen_toks must be at least 1, got {tokens}")
        return cls(
            until=(until,) if isinstance(until, str) else tuple(until),
            tokens=tokens,
            temperature=0.0 if sample is False else heat,
            top_k=int(top_k) if top_k else None,
            top_p=float(top_p) if top_p is not None and float(top_p) < 1 else None,
        )


def _chunks(items: list[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _check(options: dict[str, Any]) -> None:
    """Refuse what neither the adapter nor `zoo.load` takes, before anything is opened."""
    known = published.option_names()
    for name in options:
        if name not in known:
            raise UserError(f"--model zoobench has no argument {name!r}{nearest(name, [*ARGUMENTS, *known])}")


def _tokenizer(model: Model, where: str) -> Tokenizer:
    """The model's tokenizer, where the model can be asked at all."""
    if model.role != "lm" or model.traits.causal == "no":
        raise UserError(f"{where}: a model for {model.role} has no next token; lm_eval asks language models")
    if model.tokenizer is None:
        raise UserError(f"{where}: this model has no tokenizer, and lm_eval asks in text; train one on a `text` task")
    return model.tokenizer


def _length(wish: int | None, model: Model) -> int:
    if wish is None:
        return model.shape.length
    if isinstance(wish, bool) or not isinstance(wish, int) or wish < 1:
        raise UserError(f"max_length must be a whole number of tokens, at least 1, got {wish!r}")
    if model.longest is not None and wish > model.longest:
        raise UserError(f"max_length={wish}: this model reads at most {model.longest} tokens")
    return wish


def _batch_size(size: int | str | None, most: int | None) -> int | None:
    """Sequences at once; None for a budget of tokens."""
    if size is None or str(size).partition(":")[0] == "auto":
        size = most
    if size is not None and (not str(size).isdigit() or int(size) < 1):
        raise UserError(f"batch_size must be a whole number, at least 1, or auto, got {size!r}")
    return None if size is None else int(size)


def _said(config: dict[str, Any] | None) -> dict[str, Any]:
    """What lm_eval's command line adds, without what it says where nobody said anything: a batch of 1, and CUDA where
    there is none."""
    unsaid = [("batch_size", 1)] if torch.cuda.is_available() else [("batch_size", 1), ("device", "cuda:0")]
    return {name: value for name, value in (config or {}).items() if (name, value) not in unsaid}


def _one_line_errors() -> None:
    """From here on a UserError that nobody catches ends the program with its one line, not with a traceback."""
    before = sys.excepthook
    if getattr(before, "of_zoobench", False):
        return

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, UserError):
            print(f"zoobench: {error}", file=sys.stderr)
        else:
            before(kind, error, trace)

    show.of_zoobench = True  # type: ignore[attr-defined]
    sys.excepthook = show
