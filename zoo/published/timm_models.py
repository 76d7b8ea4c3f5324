"""Image models of timm, run by timm: any name it knows, with its weights from the hub, those of a file, or none.

timm/NAME, timm/NAME.TAG   an architecture of timm, and which of its weights
org/name, a folder         timm's format on the hub: config.json (architecture, pretrained_cfg), model.safetensors
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zoo.contract import Batch, Model
from zoo.published import files
from zoo.published.errors import PretrainedError, missing
from zoo.registry import nearest
from zoo.types import Shape, Traits

WAYS = "weights= takes a file, random=True none"
PREFIXES = ("module.", "_orig_mod.")
"""What data parallelism and compilation put before a parameter's name."""


class TimmModel(Model):
    """An image classifier of timm behind our interface: logits (B, C), those of `network` itself.

    A batch holds images (B, C, H, W) as timm takes them, or what our image tasks give: sequences (B, T, F) of square
    patches, see `image`. `preprocess` makes the former from a PIL image.
    """

    role = "classify"
    traits = Traits(causal="no", bidirectional=True, resumable=False, length="fixed", padding_safe=False)

    def __init__(self, network: Any, *, name: str, channels: int, size: tuple[int, int], fixed: bool) -> None:
        super().__init__()
        self.network, self.name, self.channels, self.size, self.fixed = network, name, channels, size, fixed
        patch = _patch(network)
        self.shape = Shape(
            length=max(1, (size[0] // patch) * (size[1] // patch)),
            features=patch**2 * channels,
            outputs=network.num_classes,
            width=network.num_features,
        )

    def forward(self, batch: Batch) -> Float[Tensor, "B C"]:
        """Logits.

        Raises:
            ValueError: the inputs are no images, or not such as this model takes.
        """
        inputs = torch.as_tensor(batch.inputs)
        if not inputs.is_floating_point() or inputs.ndim not in (3, 4):
            raise ValueError(f"{self.name} takes images (B, C, H, W) or patches (B, T, F), not {_told(inputs)}")
        if inputs.ndim == 4:
            return self.network(self._checked(inputs))
        if batch.mask is not None and not bool(torch.as_tensor(batch.mask).all()):
            raise ValueError(f"{self.name} takes whole images: none of their patches may be masked")
        return self.network(self.image(inputs))

    def image(self, patches: Float[Tensor, "B T F"]) -> Float[Tensor, "B C H W"]:
        """The images that were cut into patches, in the model's size.

        T patches of p × p pixels in raster order; in each, pixels in raster order, channels last: F = p² · C, with the
        model's channels or, gray, with one, which is repeated. Values stay as they are: the task normalised them.
        Another size than the model's is resized bilinearly, antialiased where it shrinks.

        Raises:
            ValueError: T is not n², or F neither p² · C nor p².
        """
        B, T, F = patches.shape
        n = math.isqrt(T)
        if n * n != T or not n:
            raise ValueError(f"{self.name}: {T} patches do not make a square image")
        found = [(C, math.isqrt(F // C)) for C in (self.channels, 1)]
        C, p = next(((C, p) for C, p in found if p and p * p * C == F), (0, 0))
        if not p:
            raise ValueError(
                f"{self.name}: {F} numbers are no square patch of {' or '.join(str(C) for C, _ in found)} channels"
            )
        x = patches.reshape(B, n, n, p, p, C).permute(0, 5, 1, 3, 2, 4).reshape(B, C, n * p, n * p)
        if (n * p, n * p) != self.size:
            x = nn.functional.interpolate(x, self.size, mode="bilinear", antialias=n * p > min(self.size))
        return x.expand(-1, self.channels, -1, -1)

    def preprocess(self, image: Any) -> Float[Tensor, "C H W"]:
        """A PIL image as the model takes it: timm's transform for evaluation (resize, crop, normalise)."""
        mode = {1: "L", 3: "RGB"}.get(self.channels)
        return self._transform(image.convert(mode) if mode else image)

    @cached_property
    def _transform(self) -> Callable[[Any], Tensor]:
        try:
            from timm.data import create_transform, resolve_model_data_config
        except ImportError:
            raise missing("torchvision", "vision", "the preparation of images") from None
        asked: dict[str, Any] = {"input_size": (self.channels, *self.size)}
        config = resolve_model_data_config(self.network, args=asked)
        for name in ("mean", "std"):
            if len(config[name]) != self.channels:
                asked[name] = (sum(config[name]) / len(config[name]),)
        transform: Callable[[Any], Tensor] = create_transform(**resolve_model_data_config(self.network, args=asked))
        return transform

    def _checked(self, images: Tensor) -> Tensor:
        _, C, H, W = images.shape
        if self.channels != C or (self.fixed and self.size != (H, W)):
            wanted = f"{self.channels} × {self.size[0]} × {self.size[1]}"
            raise ValueError(f"{self.name} takes images of {wanted} (channels, height, width), not {C} × {H} × {W}")
        return images


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """What timm is asked for: an architecture, the `PretrainedCfg` of its weights as a dict, and further arguments."""

    architecture: str
    config: dict[str, Any]
    arguments: dict[str, Any]
    weights: Path | None

    @property
    def fixed(self) -> bool:
        """Whether it takes one size of image only, given to it as `img_size`."""
        return bool(self.config.get("fixed_input_size")) and not self.arguments.get("dynamic_img_size")

    @property
    def classifier(self) -> str:
        """The layer whose outputs are the classes; the first of several."""
        found = self.config.get("classifier") or ""
        return found if isinstance(found, str) else str(found[0])


def load(
    where: str,
    *,
    weights: str | None = None,
    classes: int | None = None,
    size: int | None = None,
    channels: int | None = None,
    random: bool = False,
) -> Model:
    """An image model of timm, with the logits timm gives.

    Args:
        where: `timm/NAME`, `timm/NAME.TAG`, a repository on the hub, or a folder (also `local-dir:PATH`).
        weights: a file of weights, or a folder with one, instead of those that belong to `where`.
        classes: how many; by default as many as the weights have. size: side of the images. channels: of the images.
            Weights for another size or other channels are adapted, where timm can: it resamples positions, and sums
            the first convolution over its channels.
        random: initial weights, from torch's global generator.

    Raises:
        PretrainedError: timm is not installed or knows no such model; weights that cannot be had, or do not fit.
    """
    for name, value in (("classes", classes), ("size", size), ("channels", channels)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise PretrainedError(f"{where}: {name} must be a whole number, at least 1, got {value!r}")
    if random and weights is not None:
        raise PretrainedError(f"{where}: random=True goes without weights=")
    try:
        import timm
    except ImportError:
        raise missing("timm", "vision", where) from None
    source = _source(timm, where, fetch=weights is None and not random)
    path = None if random else files.find(str(weights)) if weights is not None else source.weights

    def make(tensors: dict[str, Tensor] | None = None, classes: int | None = classes) -> nn.Module:
        return _made(timm, source, where, classes, size, channels, tensors)

    network = make() if path is None else _with_weights(make, source, path, classes, adapt=bool(size or channels))
    sides = (size, size) if size else _pair(source.arguments.get("img_size") or source.config["input_size"][1:])
    patch = _patch(network)
    if source.fixed and any(side % patch for side in sides):
        raise PretrainedError(f"{where}: size must be a multiple of {patch}, the side of its patches; got {sides[0]}")
    if not network.num_classes:
        raise PretrainedError(f"{where}: it has no classes, only features; choose a model with a classifier")
    depth = channels or source.arguments.get("in_chans") or source.config["input_size"][0]
    return TimmModel(network, name=source.architecture, channels=depth, size=sides, fixed=source.fixed).eval()


def _source(timm: Any, where: str, *, fetch: bool) -> Source:
    """What `where` stands for; with its weights if asked to `fetch` them, which a folder has anyway."""
    path = Path(where.removeprefix("local-dir:")).expanduser()
    if path.exists() or where.startswith("local-dir:"):
        return _of_folder(timm, files.find(str(path)))
    name = where.removeprefix("timm/")
    if "/" in name:
        return _of_folder(timm, files.find(where))
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise _unknown(timm, where, architecture)
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError:  # a tag that this timm does not know: newer weights, maybe
        try:
            return _of_folder(timm, files.find(f"timm/{name}"))
        except PretrainedError as error:
            tags = [known.partition(".")[2] for known in timm.list_models(f"{architecture}.*", pretrained=True)]
            raise PretrainedError(f"{error}; nor does timm know the tag {tag!r}{nearest(tag, tags)}") from None
    source = Source(architecture, config.to_dict(), {}, None)
    return dataclasses.replace(source, weights=_fetched(where, source.config)) if fetch else source


def _of_folder(timm: Any, path: Path) -> Source:
    told = files.config(path)
    if told is None or "architecture" not in told:
        raise PretrainedError(
            f"{path}: no config.json that names an architecture of timm; mere weights go into weights=, with timm/NAME"
        )
    config, arguments = told.get("pretrained_cfg", told), told.get("model_args") or {}
    if not isinstance(config, dict) or not isinstance(arguments, dict):
        raise PretrainedError(f"{path}: its config.json is not timm's: pretrained_cfg and model_args must be mappings")
    if not timm.is_model(told["architecture"]):
        raise _unknown(timm, str(path), str(told["architecture"]))
    fields = {field.name for field in dataclasses.fields(timm.models.PretrainedCfg)}
    fields -= {"url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "source"}
    known = {name: value for name, value in config.items() if name in fields}
    if "num_classes" in told:
        known["num_classes"] = told["num_classes"]
    try:
        return Source(told["architecture"], timm.models.PretrainedCfg(**known).to_dict(), arguments, path)
    except TypeError as error:
        raise PretrainedError(f"{path}: its config.json is not timm's ({error})") from None


def _unknown(timm: Any, where: str, architecture: str) -> PretrainedError:
    near = nearest(architecture, timm.list_models())
    told = near if near.startswith("; did") else "; timm.list_models() names them all"
    return PretrainedError(f"{where}: timm knows no model {architecture!r}{told}")


def _fetched(where: str, config: dict[str, Any]) -> Path:
    """The folder with the weights of one of timm's own models, from the hub or its cache."""
    if not config.get("hf_hub_id"):
        told = f"are not on the hub but at {config['url']}" if config.get("url") else "were never published by timm"
        raise PretrainedError(f"{where}: its weights {told}; {WAYS}")
    try:
        return files.find(config["hf_hub_id"], patterns=("*.safetensors",))
    except PretrainedError as error:
        raise PretrainedError(f"{error}; {WAYS}") from None


def _made(
    timm: Any,
    source: Source,
    where: str,
    classes: int | None,
    size: int | None,
    channels: int | None,
    tensors: dict[str, Tensor] | None,
) -> Any:
    """The network: with initial weights, or with `tensors`, translated and adapted by timm."""
    arguments, config = dict(source.arguments), dict(source.config)
    asked = {"num_classes": classes, "in_chans": channels, "img_size": size if source.fixed else None}
    arguments |= {name: value for name, value in asked.items() if value is not None}
    if tensors is not None:
        config |= {"state_dict": tensors, "num_classes": arguments.get("num_classes", config["num_classes"])}
    try:
        network = timm.create_model(
            source.architecture, pretrained=tensors is not None, pretrained_cfg=config, **arguments
        )
    except Exception as error:  # each of its models has its own ways to refuse
        raise PretrainedError(f"{where}: timm cannot make this model: {' '.join(str(error).split())}") from None
    network.pretrained_cfg.pop("state_dict", None)
    return network


def _with_weights(
    make: Callable[..., nn.Module], source: Source, path: Path, classes: int | None, *, adapt: bool
) -> nn.Module:
    """The network with the weights at `path`.

    They are loaded as they are. Where that fails because their names are another project's, or were meant for another
    size or other channels than was asked for (`adapt`), timm translates them as it does those it publishes.
    """
    tensors = {_bare(name): value for name, value in files.read(path).items()}
    head = tensors.get(f"{source.classifier}.weight")
    if head is not None:
        if classes not in (None, len(head)):
            raise PretrainedError(
                f"{path}: {source.classifier}.weight has the shape {tuple(head.shape)}, where {classes} classes need "
                f"{(classes, *head.shape[1:])}; classes={len(head)} fits"
            )
        classes = len(head)
    with torch.random.fork_rng(devices=[]):
        network = make(classes=classes)
        try:
            files.fit(network, tensors, path)
        except PretrainedError as error:
            if adapt or network.state_dict().keys() != tensors.keys():
                try:
                    return make(tensors, classes)
                except PretrainedError:
                    pass
            raise PretrainedError(f"{error}{_hint(network, source, tensors)}") from None
    return network


def _bare(name: str) -> str:
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _hint(network: nn.Module, source: Source, tensors: dict[str, Tensor]) -> str:
    """The option that would make weights fit, by the first tensor that does not; empty where none is known."""
    for name, own in network.state_dict().items():
        other = tensors.get(name)
        if other is None or other.shape == own.shape or other.ndim != own.ndim:
            continue
        if name == f"{source.config.get('first_conv')}.weight" and other.shape[0] == own.shape[0]:
            return f"; channels={other.shape[1]} fits" if other.shape[2:] == own.shape[2:] else ""
        return _size_hint(network, own, other) if source.fixed else ""
    return ""


def _size_hint(network: nn.Module, own: Tensor, other: Tensor) -> str:
    """The size of image that has as many patches as `other`, if one of its axes counts patches."""
    patches = getattr(_embedding(network), "num_patches", None)
    extra = int(getattr(network, "num_prefix_tokens", 0))
    for mine, its in zip(own.shape, other.shape, strict=True):
        for more in {0, extra}:
            side = math.isqrt(max(0, its - more))
            if mine != its and mine - more == patches and side * side == its - more and side:
                return f"; size={side * _patch(network)} fits"
    return ""


def _embedding(network: nn.Module) -> Any:
    """The layer that cuts the image into patches; None where there is none."""
    from timm.layers import PatchEmbed

    return next((module for module in network.modules() if isinstance(module, PatchEmbed)), None)


def _patch(network: nn.Module) -> int:
    """The side of its square patches, in pixels; 1 where it has none."""
    height, width = _pair(getattr(_embedding(network), "patch_size", 1))
    return height if height == width else 1


def _pair(size: Any) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)


def _told(inputs: Tensor) -> str:
    return f"{str(inputs.dtype).removeprefix('torch.')} of {tuple(inputs.shape)}"
