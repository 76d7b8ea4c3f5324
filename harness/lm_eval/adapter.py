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
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import CacheHook, TemplateLM
from tqdm import tqdm

from harness import machine
from harness.errors import UserError
from harness.lm_eval import scoring
from harness.lm_eval.generation import GenerationOptions, continue_prompts
from harness.plan.published_rows import weights_digest
from harness.records.find import open_model
from zoo import published
from zoo.contract import Model, Unsupported, device_of
from zoo.registry import nearest
from zoo.tokenizers import Tokenizer, TokenizerError

ARGUMENTS = ("run", "model", "results", "max_length", "batch_size", "device", "prefix_token_id", "precision")
"""The adapter's own; all others go to `zoo.load`."""
PRECISIONS = ("fp32", "bf16", "auto")
PROMPTS = 256
"""Prompts that are continued between two entries into a cache of answers."""
CACHE_OWNER = "zoobench: answers of"
"""The key under which a cache of answers keeps whose they are."""


class Zoobench(TemplateLM):
    """A language model that lm_eval can ask for everything: log-likelihoods, rolling ones, and continuations.

    Args:
        run: a run (path, id, or labels: see `harness.records.find.find_run`), or what `zoo.load` opens.
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

    prefix_token_id = 0
    eot_token_id = 0
    """The token that ends a text; of a model that was never shown an end, the one before a text."""

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
        wanted = run if model is None else model
        if isinstance(wanted, float):
            raise UserError(f"lm_eval took {wanted} for a number; put it in quotes, or give the path of the run")
        if not isinstance(wanted, Model):
            self.where = str(wanted)
            self.model: Model = open_model(self.where, None if results is None else Path(results), **options)
        elif options:
            raise UserError(f"a model that is open takes no {', '.join(options)}; options are for published weights")
        else:
            self.where, self.model = type(wanted).__name__, wanted
        self.model.eval()
        self.tokenizer: Tokenizer = _tokenizer(self.model, self.where)
        self._device = _place(self.model, device, stay=isinstance(wanted, Model))
        if precision not in PRECISIONS:
            raise UserError(f"precision {precision!r}{nearest(str(precision), PRECISIONS)}")
        self.precision = machine.resolve_precision(precision, self._device)
        self.max_length = _length(max_length, self.model)
        self.batch_size = _batch_size(batch_size, max_batch_size)
        first, end, vocab = self.tokenizer.prefix, self.tokenizer.end, self.model.shape.vocab or 0
        self.prefix_token_id = first if prefix_token_id is None else int(prefix_token_id)
        self.eot_token_id = self.prefix_token_id if end is None else end
        if not 0 <= self.prefix_token_id < vocab:
            raise UserError(f"prefix_token_id {self.prefix_token_id} is none of the model's {vocab} tokens")

    @classmethod
    def create_from_arg_string(cls, arg_string: str, additional_config: dict[str, Any] | None = None) -> Zoobench:
        _one_line_errors()
        return super().create_from_arg_string(arg_string, _explicit(additional_config))

    @classmethod
    def create_from_arg_obj(cls, arg_dict: dict[str, Any], additional_config: dict[str, Any] | None = None) -> Zoobench:
        _one_line_errors()
        return super().create_from_arg_obj(arg_dict, _explicit(additional_config))

    # tokens

    @property
    def tokenizer_name(self) -> str:
        """A name that depends on the tokenizer's content; caches of tokenized requests use it."""
        try:
            described = json.dumps(self.tokenizer.describe(), sort_keys=True)
        except ValueError:  # one of transformers' that is written in Python
            described = f"{self.where} {self.tokenizer.vocab}"
        return f"{self.tokenizer.kind}-{hashlib.sha256(described.encode()).hexdigest()[:12]}"

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """The tokens of a text, without special ones where it begins with the prefix; UserError if one has no token."""
        prefix = self.tokenizer.decode([self.prefix_token_id])
        if add_special_tokens is None and prefix and string.startswith(prefix):
            add_special_tokens = False
        try:
            return self.tokenizer.encode(string, special=add_special_tokens)
        except TokenizerError as error:
            begins = string if len(string) <= 40 else string[:40] + "…"
            raise UserError(f"{error} (in the request {begins!r})") from None

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """As every `TemplateLM` does, and where that leaves nothing to read or to score, each text by itself."""
        before, after = super()._encode_pair(context, continuation)
        if continuation and not after:  # it ends inside a token of the context
            after = self.tok_encode(continuation, add_special_tokens=False)
        return before or [self.prefix_token_id], after

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Raises UserError, as there is no template."""
        raise UserError("this model has no chat template; run the task without --apply_chat_template")

    # log-likelihoods

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Log-likelihoods in nats, and whether greedy decoding gives the same; (0, true) for nothing after nothing."""
        asked = [request for request in requests if request.args != ("", "")]
        scores = iter(super().loglikelihood(asked, disable_tqdm=disable_tqdm))
        return [next(scores) if request.args != ("", "") else (0.0, True) for request in requests]

    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], disable_tqdm: bool = False, **kwargs: Any
    ) -> list[tuple[float, bool]]:
        pairs, keys = [(context, after) for _, context, after in requests], [key for key, *_ in requests]
        return self._score(pairs, "loglikelihood", keys, disable_tqdm)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihoods of whole texts in nats, in windows of `max_length` with one token of context."""
        pairs = [([self.prefix_token_id], self.tok_encode(request.args[0])) for request in requests]
        keys = [request.args for request in requests]
        return [value for value, _ in self._score(pairs, "loglikelihood_rolling", keys, disable_tqdm)]

    def _score(self, pairs: Sequence[scoring.Pair], kind: str, keys: Sequence[Any], quiet: bool) -> list[scoring.Score]:
        """Scores of pairs; each goes into lm_eval's cache as soon as it is known, under its key."""

        def on_score(index: int, score: scoring.Score) -> None:
            self.cache_hook.add_partial(kind, keys[index], score if kind == "loglikelihood" else score[0])
            bar.update()

        length, size = self.max_length, self.batch_size
        with tqdm(total=len(pairs), disable=quiet, desc="log-likelihoods") as bar, self._computing():
            return scoring.score(self.model, pairs, max_length=length, batch_size=size, on_score=on_score)

    @contextmanager
    def _computing(self) -> Iterator[None]:
        """In the model's precision; what it cannot do is a UserError that names it."""
        with machine.autocast(self._device, self.precision):
            try:
                yield
            except (Unsupported, ValueError) as error:
                raise UserError(f"{self.where}: {error}") from None

    # continuations

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Continuations, each cut before the first of its stop strings.

        What is drawn depends on torch's own seed, which lm_eval sets (`--seed`), and on a request's place.
        """
        texts = [""] * len(requests)
        alike: dict[GenerationOptions, list[int]] = defaultdict(list)
        for index, request in enumerate(requests):
            alike[GenerationOptions.parse(request.args[1], self.max_length)].append(index)
        with tqdm(total=len(requests), disable=disable_tqdm, desc="continuations") as bar:
            for options, indices in alike.items():
                prompts = {index: self._prompt(requests[index].args[0], options.tokens) for index in indices}
                indices.sort(key=lambda index: -len(prompts[index]))
                for start in range(0, len(indices), PROMPTS):
                    batch = {index: prompts[index] for index in indices[start : start + PROMPTS]}
                    with self._computing():
                        made = continue_prompts(self.model, self.tokenizer, batch, options, self.batch_size)
                    for index, text in zip(batch, made, strict=True):
                        texts[index] = text
                        self.cache_hook.add_partial("generate_until", requests[index].args, text)
                    bar.update(len(batch))
        return texts

    def _prompt(self, context: str, generated: int) -> list[int]:
        """The end of a context, before `generated` tokens; all a model reads, where it has no longest sequence."""
        longest = self.max_length
        if generated >= longest and self.model.longest is not None:
            raise UserError(f"max_gen_toks={generated} must be less than the {longest} tokens this model can read")
        tokens = self.tok_encode(context) or [self.prefix_token_id]
        return tokens[-(longest - generated if generated < longest else longest) :]

    # what is written down

    @cached_property
    def weights(self) -> str:
        """A hash of all parameters and buffers."""
        return weights_digest(self.model)

    def get_model_info(self) -> dict[str, Any]:
        """What lm_eval writes beside the results."""
        parameters = list(self.model.parameters())
        return {
            "model_num_parameters": sum(parameter.numel() for parameter in parameters),
            "model_dtype": str(next(iter(parameters), torch.empty(0)).dtype),
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
        known = cache_hook.dbdict
        if known is not None:
            own = f"{self.weights} {self.tokenizer_name} {self.max_length} {self.prefix_token_id} {self.precision}"
            if known.get(CACHE_OWNER, "" if len(known) else own) != own:
                why = "this cache holds answers of another model or other settings"
                raise UserError(f"{why}; give use_cache a new path")
            known[CACHE_OWNER] = own
        super().set_cache_hook(cache_hook)


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


def _place(model: Model, device: str | torch.device | None, *, stay: bool) -> torch.device:
    """Move a model to a device; given None and `stay`, it stays where it is."""
    try:
        place = device_of(model) if device is None and stay else torch.device(device or machine.pick())
        model.to(place)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"device {str(device)!r}: {str(error).splitlines()[0]}") from None
    return place


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


def _explicit(config: dict[str, Any] | None) -> dict[str, Any]:
    """What lm_eval's command line was given, without its own defaults: a batch of 1, and CUDA where there is none."""
    defaults = [("batch_size", 1)] if torch.cuda.is_available() else [("batch_size", 1), ("device", "cuda:0")]
    return {name: value for name, value in (config or {}).items() if (name, value) not in defaults}


def _one_line_errors() -> None:
    """From now on a UserError that nobody catches ends the program with its one line instead of a traceback."""
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
