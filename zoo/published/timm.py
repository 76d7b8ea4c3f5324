"""Image models of timm, run by timm, with weights from the hub, from a file, or random ones.

timm/NAME, timm/NAME.TAG   an architecture of timm, and the tag of its weights
hf:org/name, a folder      timm's format on the hub: config.json (architecture, pretrained_cfg), model.safetensors
"""

import contextlib
import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zoo.contract import Batch, Model
from zoo.published import files
from zoo.published.errors import PretrainedError, need, one_line
from zoo.registry import nearest
from zoo.types import Shape, Traits

NO_DOWNLOAD = "weights= takes a file, random=True none"
PREFIXES = re.compile(r"(module\.)?(_orig_mod\.)?")
"""Prefixes that data parallelism and compilation add to parameter names."""


class TimmModel(Model):
    """An image classifier of timm behind our interface, with its own logits (B, C).

    A batch holds images (B, C, H, W) as timm's transforms make them, or sequences (B, T, F) of square patches as our
    image tasks give them (see `image`).
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
            ValueError: the inputs are no images, or not of the model's size and channels.
        """
        inputs = torch.as_tensor(batch.inputs)
        if not inputs.is_floating_point() or inputs.ndim not in (3, 4):
            given = f"{str(inputs.dtype).removeprefix('torch.')} of {tuple(inputs.shape)}"
            raise ValueError(f"{self.name} takes images (B, C, H, W) or patches (B, T, F), not {given}")
        if inputs.ndim == 4:
            return self.network(self._checked(inputs))
        if batch.mask is not None and not bool(torch.as_tensor(batch.mask).all()):
            raise ValueError(f"{self.name} takes whole images: none of their patches may be masked")
        return self.network(self.image(inputs))

    def image(self, patches: Float[Tensor, "B T F"]) -> Float[Tensor, "B C H W"]:
        """Images put together from their patches, and resized to the model's size.

        Patches of p × p pixels, and the pixels in each, are in raster order, with channels last: F = p² · C for the
        model's channels, or p² for gray, which is repeated. Values stay as the task normalised them. Resizing is
        bilinear, with antialiasing when shrinking.

        Raises:
            ValueError: T is not n², or F neither p² · C nor p².
        """
        B, T, F = patches.shape
        n = math.isqrt(T)
        if n * n != T or not n:
            raise ValueError(f"{self.name}: {T} patches do not make a square image")
        candidates = [(C, math.isqrt(F // C)) for C in (self.channels, 1)]
        C, p = next(((C, p) for C, p in candidates if p and p * p * C == F), (0, 0))
        if not p:
            raise ValueError(f"{self.name}: {F} numbers are no square patch of {self.channels} or 1 channels")
        x = patches.reshape(B, n, n, p, p, C).permute(0, 5, 1, 3, 2, 4).reshape(B, C, n * p, n * p)
        if (n * p, n * p) != self.size:
            x = nn.functional.interpolate(x, self.size, mode="bilinear", antialias=n * p > min(self.size))
        return x.expand(-1, self.channels, -1, -1)

    def _checked(self, images: Tensor) -> Tensor:
        _, C, H, W = images.shape
        if self.channels != C or (self.fixed and self.size != (H, W)):
            own = f"{self.channels} × {self.size[0]} × {self.size[1]}"
            raise ValueError(f"{self.name} takes images of {own} (channels, height, width), not {C} × {H} × {W}")
        return images


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """A model in timm's terms: an architecture, the `PretrainedCfg` of its weights, and arguments of `create_model`."""

    architecture: str
    config: dict[str, Any]
    arguments: dict[str, Any]
    weights: Path | None

    @property
    def fixed(self) -> bool:
        """Whether it takes images of one size only, given as `img_size`."""
        return bool(self.config.get("fixed_input_size")) and not self.arguments.get("dynamic_img_size")

    @property
    def classifier(self) -> str:
        """The name of the layer that gives the classes; the first of several."""
        name = self.config.get("classifier") or ""
        return name if isinstance(name, str) else str(name[0])

    def create(
        self, timm: Any, where: str, tensors: dict[str, Tensor] | None, options: dict[str, int | None]
    ) -> nn.Module:
        """The network with initial weights, or with `tensors` as timm translates and adapts them."""
        names = {"classes": "num_classes", "channels": "in_chans", **({"size": "img_size"} if self.fixed else {})}
        own = {names[name]: value for name, value in options.items() if value is not None and name in names}
        arguments, config = self.arguments | own, dict(self.config)
        if tensors is not None:
            config |= {"state_dict": tensors, "num_classes": arguments.get("num_classes", config["num_classes"])}
        try:
            network: nn.Module = timm.create_model(
                self.architecture, pretrained=tensors is not None, pretrained_cfg=config, **arguments
            )
        except Exception as error:  # each of its models refuses in its own way
            raise PretrainedError(f"{where}: timm cannot make this model: {one_line(error)}") from None
        network.pretrained_cfg.pop("state_dict", None)  # type: ignore[operator, union-attr]
        return network


def load(
    where: str,
    *,
    weights: str | Path | None = None,
    classes: int | None = None,
    size: int | None = None,
    channels: int | None = None,
    random: bool = False,
) -> Model:
    """An image model of timm.

    Args:
        where: `timm/NAME`, `timm/NAME.TAG`, a repository on the hub, or a folder (also `local-dir:PATH`).
        weights: a file of weights, or a folder with one, instead of those that belong to `where`.
        classes: the number of classes; by default that of the weights.
        size: the side of the images. Where timm can, weights for another size are adapted: positions are resampled.
        channels: of the images. Where timm can, weights are adapted by summing the first convolution over channels.
        random: start from initial weights, drawn from torch's global generator.
    """
    options = {"classes": classes, "size": size, "channels": channels}
    for name, value in options.items():
        if value is not None and value < 1:
            raise PretrainedError(f"{where}: {name} must be at least 1, got {value}")
    if random and weights is not None:
        raise PretrainedError(f"{where}: random=True goes without weights=")
    timm = need("timm", "vision", where)
    source = _source(timm, where, fetch=weights is None and not random)
    path = None if random else files.find(str(weights)) if weights is not None else source.weights
    if path is None:
        network: Any = source.create(timm, where, None, options)
    else:
        network = _with_weights(timm, source, where, path, options)
    sides = timm.layers.to_2tuple(size or source.arguments.get("img_size") or source.config["input_size"][1:])
    patch = _patch(network)
    if source.fixed and any(side % patch for side in sides):
        raise PretrainedError(f"{where}: size must be a multiple of {patch}, the side of its patches; got {sides[0]}")
    if not network.num_classes:
        raise PretrainedError(f"{where}: it has no classes, only features; choose a model with a classifier")
    depth = channels or source.arguments.get("in_chans") or source.config["input_size"][0]
    return TimmModel(network, name=source.architecture, channels=depth, size=sides, fixed=source.fixed).eval()


def _source(timm: Any, where: str, *, fetch: bool) -> Source:
    """The model that `where` names, with its weights if it is a folder or if `fetch` is set."""
    path = Path(where.removeprefix("local-dir:")).expanduser()
    if path.exists() or where.startswith("local-dir:"):
        return _of_folder(timm, files.find(str(path)))
    name = where.removeprefix("hf:").removeprefix("timm/")
    if "/" in name:
        return _of_folder(timm, files.find(where))
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise _unknown(timm, where, architecture)
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError:  # a tag that this timm does not know: newer weights, maybe
        try:
            return _of_folder(timm, files.find(f"hf:timm/{name}"))
        except PretrainedError as error:
            tags = [known.partition(".")[2] for known in timm.list_models(f"{architecture}.*", pretrained=True)]
            raise PretrainedError(f"{error}; nor does timm know the tag {tag!r}{nearest(tag, tags)}") from None
    source = Source(architecture, config.to_dict(), {}, None)
    return dataclasses.replace(source, weights=_fetched(where, source.config)) if fetch else source


def _of_folder(timm: Any, path: Path) -> Source:
    content = files.config(path)
    if content is None or "architecture" not in content:
        raise PretrainedError(
            f"{path}: no config.json that names an architecture of timm; mere weights go into weights=, with timm/NAME"
        )
    architecture = str(content["architecture"])
    config, arguments = content.get("pretrained_cfg", content), content.get("model_args") or {}
    if not isinstance(config, dict) or not isinstance(arguments, dict):
        raise PretrainedError(f"{path}: its config.json is not timm's: pretrained_cfg and model_args must be mappings")
    if not timm.is_model(architecture):
        raise _unknown(timm, str(path), architecture)
    fields = {field.name for field in dataclasses.fields(timm.models.PretrainedCfg)}
    fields -= {"url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "source"}
    values = {name: value for name, value in config.items() if name in fields}
    if "num_classes" in content:
        values["num_classes"] = content["num_classes"]
    return Source(architecture, timm.models.PretrainedCfg(**values).to_dict(), arguments, path)


def _unknown(timm: Any, where: str, architecture: str) -> PretrainedError:
    near = nearest(architecture, timm.list_models())
    hint = near if near.startswith("; did") else "; timm.list_models() names them all"
    return PretrainedError(f"{where}: timm knows no model {architecture!r}{hint}")


def _fetched(where: str, config: dict[str, Any]) -> Path:
    """The folder with the weights of one of timm's own models, from the hub or its cache."""
    if not config.get("hf_hub_id"):
        place = f"are not on the hub but at {config['url']}" if config.get("url") else "were never published by timm"
        raise PretrainedError(f"{where}: its weights {place}; {NO_DOWNLOAD}")
    try:
        return files.find(f"hf:{config['hf_hub_id']}", patterns=("*.safetensors",))
    except PretrainedError as error:
        raise PretrainedError(f"{error}; {NO_DOWNLOAD}") from None


def _with_weights(timm: Any, source: Source, where: str, path: Path, options: dict[str, int | None]) -> nn.Module:
    """The network with the weights at `path`.

    They are loaded as they are. If that fails because their names are another project's, or because they are for
    another size or other channels than requested, timm translates them as it does those it publishes.
    """
    tensors = {PREFIXES.sub("", name, count=1): value for name, value in files.read(path).items()}
    head, classes = tensors.get(f"{source.classifier}.weight"), options["classes"]
    if head is not None:
        if classes not in (None, len(head)):
            raise PretrainedError(
                f"{path}: {source.classifier}.weight has the shape {tuple(head.shape)}, where {classes} classes need "
                f"{(classes, *head.shape[1:])}; classes={len(head)} fits"
            )
        options = options | {"classes": len(head)}
    with torch.random.fork_rng(devices=[]):
        network = source.create(timm, where, None, options)
        try:
            files.fit(network, tensors, path)
        except PretrainedError as error:
            if options["size"] or options["channels"] or network.state_dict().keys() != tensors.keys():
                with contextlib.suppress(PretrainedError):
                    return source.create(timm, where, tensors, options)
            raise PretrainedError(f"{error}; size= and channels= change the model") from None
    return network


def _patch(network: nn.Module) -> int:
    """The side of the model's square patches, in pixels; 1 if it has none."""
    from timm.layers import PatchEmbed, to_2tuple

    layer = next((module for module in network.modules() if isinstance(module, PatchEmbed)), None)
    height, width = to_2tuple(getattr(layer, "patch_size", 1))
    return height if height == width else 1
