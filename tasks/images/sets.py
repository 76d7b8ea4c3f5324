"""Sets of labelled images: by name, or a user's folder in one of the usual layouts. One place for splits and checks."""

import gzip
import hashlib
import io
import math
import os
import pickle
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tasks import corpora
from tasks.base import SPLITS, DataError, Ids, Split
from tasks.corpora.download import digest
from zoo.files import open_regular, read_bytes, user_path
from zoo.registry import nearest

Pixels: TypeAlias = NDArray[np.uint8]
Layout: TypeAlias = Literal["mnist_5k", "cifar10", "idx", "folder", "cifar"]
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
HELD_OUT = ("test", "val", "valid", "validation")
FILES = tuple(f"{part}-{kind}" for part in ("train", "t10k") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"))
MOST_UNPACKED = 1 << 30
"""Bytes of the largest file of images, once it is unpacked."""
MOST_OTHERS = 50_000
"""Folders, and files that are no images, in a folder of images."""
BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
NAMED = {"mnist_5k": (28, 1, 10), "cifar10": (32, 3, 10)}
"""Side, channels and classes of the sets known by name."""
CIFAR10 = ("cifar10_train", "cifar10_test")
IDX_CLASSES = 10
"""Of every set that has MNIST's file names: MNIST, Fashion-MNIST, KMNIST."""
MNIST_5K = dict(zip(SPLITS, pairwise((0, 3500, 3750, 4250, 5000)), strict=True))
"""The places of each split among its images, sorted by content hash."""


@dataclass(frozen=True, eq=False)
class Content:
    """Images that all have been read.

    `images`: (N, S, S) or (N, S, S, 3) uint8, or, where they differ in size, an object array of such images.
    `borders`: the places of each split.
    """

    images: NDArray[Any]
    labels: Ids
    borders: dict[Split, tuple[int, int]]


@dataclass(frozen=True)
class ImageSet:
    """A set of images before its pixels are read."""

    name: str
    layout: Layout
    hash: str
    """Of the content: what a fingerprint holds."""
    classes: int
    side: int | None
    """Of every image, which are then square; None where they may differ."""
    channels: int
    """1 (gray) or 3 (red, green, blue)."""
    files: tuple[Path, ...] = ()
    root: Path | None = None
    """The folder, where it holds a folder for each class."""

    def read(self) -> Content:
        """Images, labels and splits; kept in memory.

        Where a set has an official test, that is `test`, and `tune` and `valid` are cut from train by content hash (2
        and 8 hundredths); else all four are (70, 5, 10, 15). Equal images share a split: train loses those that test
        has too, and of equal images with one label only one is kept.

        Raises:
            DataError: the data is not here, or damaged.
        """
        return _read(self)

    def count(self, split: Split) -> int:
        """Images in a split. Of mnist_5k that is known; any other set is read to be counted.

        Raises:
            DataError: as `read`.
        """
        start, stop = MNIST_5K[split] if self.layout == "mnist_5k" else self.read().borders[split]
        return stop - start


def named(task: str, corpus: str, path: str | None) -> ImageSet:
    """The set that a task's options name.

    Raises:
        ValueError: unknown corpus, or both options are given. DataError: there is no such folder, or nothing in it.
    """
    if path is not None:
        if corpus != "mnist_5k":
            raise ValueError(f"{task} takes `corpus` or `path`, not both")
        return of_folder(path)
    if corpus not in NAMED:
        raise ValueError(
            f"{task}: unknown corpus {corpus!r}{nearest(corpus, NAMED) or '; known: ' + ', '.join(sorted(NAMED))}"
        )
    side, channels, classes = NAMED[corpus]
    if corpus == "mnist_5k":
        return ImageSet(corpus, "mnist_5k", str(corpora.get(corpus).sha256), classes, side, channels)
    content = hashlib.sha256("".join(str(corpora.get(name).sha256) for name in CIFAR10).encode()).hexdigest()
    return ImageSet(corpus, "cifar10", content, classes, side, channels)


def of_folder(path: str | Path) -> ImageSet:
    """The set in a folder: MNIST's four idx files, CIFAR-10's batches, or a folder of images for each class.

    - `ROOT`, `ROOT/MNIST` or `ROOT/MNIST/raw` with `train-images-idx3-ubyte` and so on, packed with gzip or not;
    - `cifar-10-batches-py`, or the folder that holds it;
    - `train/CLASS/*.png` and `test/CLASS/*.png` (or `val`), or `CLASS/*.png` alone. Classes are numbered by name.

    Raises:
        DataError: there is no such folder, or nothing of the kind in it.
    """
    root = user_path(path)
    if not os.path.isdir(root):
        raise DataError(f"image folder {root} {'is a file' if os.path.isfile(root) else 'does not exist'}")
    try:
        return _of_folder(root)
    except OSError as error:
        raise DataError(f"image folder {root}: {error.filename} cannot be read: {error.strerror}") from None


def _of_folder(root: Path) -> ImageSet:
    for folder in (root, root / "raw", *sorted(root.glob("*/raw"))):
        if files := _all_or_none(folder, FILES):
            content = _hash(files)
            return ImageSet(root.name, "idx", content, IDX_CLASSES, _idx_side(files[0], content), 1, files)
    for folder in (root, root / "cifar-10-batches-py"):
        if files := _all_or_none(folder, BATCHES):
            return ImageSet(root.name, "cifar", _hash(files), 10, 32, 3, files)
    files = _image_files(root)
    names = _classes(root, files)[2]
    return ImageSet(root.name, "folder", _hash(files, root), len(names), None, 3, files, root)


def _image_files(root: Path) -> tuple[Path, ...]:
    """The images below a folder, sorted; a DataError where so much else is there that it holds no set of images."""
    found, others = list[Path](), 0
    for folder, folders, names in os.walk(root):
        images = [name for name in names if os.path.splitext(name)[1].lower() in IMAGES]
        others += len(folders) + len(names) - len(images)
        if others > MOST_OTHERS:
            raise DataError(f"image folder {root} has over {MOST_OTHERS:,} folders, and files that are no images")
        found += [Path(folder, name) for name in images]
    return tuple(sorted(file for file in found if file.is_file()))


def _all_or_none(folder: Path, names: tuple[str, ...]) -> tuple[Path, ...]:
    """The files of these names in a folder, packed with gzip or not; a DataError where only some are there."""
    found = {name: file for name in names for file in (folder / f"{name}.gz", folder / name) if file.is_file()}
    missing = [name for name in names if name not in found]
    if found and missing:
        raise DataError(f"image folder {folder} lacks {', '.join(missing)}")
    return tuple(found[name] for name in names if found)


def _classes(root: Path, files: tuple[Path, ...]) -> tuple[list[bool], Ids, list[str]]:
    """Whether each file is of the test, its label, and the names of the classes."""
    parts = [file.relative_to(root).parts for file in files]
    split = any(p[0] == "train" for p in parts) and all(p[0] in ("train", *HELD_OUT) for p in parts)
    depth = 1 if split else 0
    for file, p in zip(files, parts, strict=True):
        if len(p) < depth + 2:
            raise DataError(f"{file} stands in no class's folder: expected {root}/{'train/' * depth}CLASS/{file.name}")
    classes = sorted({p[depth] for p in parts})
    if len(classes) < 2:
        raise DataError(
            f"image folder {root} has images of {len(classes)} classes, and 2 are needed: expected MNIST's idx files, "
            "cifar-10-batches-py, or CLASS/*.png"
        )
    return [split and p[0] != "train" for p in parts], np.array([classes.index(p[depth]) for p in parts]), classes


def _hash(files: tuple[Path, ...], root: Path | None = None) -> str:
    """SHA-256 of the names (below `root`) and contents of files; each is read again only when it has changed."""
    state = hashlib.sha256()
    for file in files:
        try:
            stat = file.stat()
            content = _hash_of(file, stat.st_size, stat.st_mtime_ns)
        except OSError as error:
            raise DataError(f"{file} cannot be read: {error.strerror}") from error
        state.update(
            f"{file.relative_to(root) if root else file.name.removesuffix('.gz')}\0{content}\n".encode(
                "utf-8", "surrogateescape"
            )
        )
    return state.hexdigest()


@lru_cache(maxsize=1 << 18)
def _hash_of(file: Path, length: int, changed: int) -> str:
    return digest(file)[0]


@lru_cache(maxsize=2)
def _read(images: ImageSet) -> Content:
    readers: dict[Layout, Callable[[ImageSet], tuple[NDArray[Any], Ids, NDArray[np.bool_] | None]]] = {
        "mnist_5k": _mnist_5k,
        "cifar10": _cifar10,
        "idx": _idx,
        "folder": _folder,
        "cifar": _cifar_batches,
    }
    pixels, labels, test = readers[images.layout](images)
    return _split(images, pixels, labels, test)


def _split(images: ImageSet, pixels: NDArray[Any], labels: Ids, test: NDArray[np.bool_] | None) -> Content:
    """Splits by content hash; see `ImageSet.read`."""
    digests = [hashlib.sha256(np.ascontiguousarray(image).tobytes()).digest() for image in pixels]
    order = sorted(range(len(pixels)), key=lambda i: digests[i])
    if images.layout == "mnist_5k":
        return Content(pixels[order], labels[order], MNIST_5K)
    held_out = {digests[i] for i in order if test is not None and test[i]}
    seen: set[bytes] = set()
    ours: list[int] = []
    theirs: list[int] = []
    for i in order:
        if digests[i] in seen or (test is not None and not test[i] and digests[i] in held_out):
            continue
        seen.add(digests[i])
        (theirs if test is not None and test[i] else ours).append(i)
    ends = [cut * len(ours) // 100 for cut in ((70, 75, 85) if test is None else (90, 92, 100))]
    places = ours + theirs
    borders = dict(zip(SPLITS, pairwise([0, *ends, len(places)]), strict=True))
    for split, (start, stop) in borders.items():
        if start == stop:
            raise DataError(
                f"image set {images.name} has {len(places)} different images: too few, split {split!r} is empty"
            )
    return Content(pixels[places], labels[places], borders)


def _mnist_5k(images: ImageSet) -> tuple[Pixels, Ids, None]:
    table = np.loadtxt(io.BytesIO(corpora.load(corpora.get("mnist_5k"))), delimiter=",", dtype=np.uint8)
    return table[:, :-1].reshape(-1, 28, 28), table[:, -1].astype(np.int64), None


def _cifar10(images: ImageSet) -> tuple[Pixels, Ids, NDArray[np.bool_]]:
    from pyarrow import parquet

    contents = [corpora.load(corpora.get(name)) for name in CIFAR10]
    pixels, labels, counts = [], [], []
    for content in contents:
        rows = parquet.read_table(io.BytesIO(content)).to_pydict()
        pixels += [_decoded(row["bytes"], "cifar10") for row in rows["img"]]
        labels += rows["label"]
        counts.append(len(rows["label"]))
    return np.stack(pixels), np.array(labels, dtype=np.int64), np.arange(sum(counts)) >= counts[0]


def _decoded(content: bytes, name: str) -> Pixels:
    """An image file's pixels, (H, W, 3)."""
    try:
        from PIL import Image
    except ImportError as error:
        how = "install their reader with: pip install 'zoobench[vision]'"
        raise DataError(f"{name} holds image files: {how}") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content))
        with image:
            return np.asarray(image.convert("RGB"))
    except Exception as error:
        raise DataError(f"{name} is not an image that can be read: {error}".splitlines()[0]) from error


def _folder(images: ImageSet) -> tuple[NDArray[Any], Ids, NDArray[np.bool_] | None]:
    assert images.root is not None
    test, labels, _ = _classes(images.root, images.files)
    pixels = np.empty(len(images.files), dtype=object)
    for i, file in enumerate(images.files):
        pixels[i] = _decoded(_unpacked(file), str(file))
    return pixels, labels, np.array(test) if any(test) else None


def _unpacked(file: Path) -> bytes:
    try:
        if file.suffix != ".gz":
            return read_bytes(file, MOST_UNPACKED)
        with open_regular(file) as packed, gzip.open(packed) as unpacked:
            content = unpacked.read(MOST_UNPACKED + 1)
        if len(content) > MOST_UNPACKED:
            raise DataError(f"{file} has more than {MOST_UNPACKED:,} bytes once unpacked")
        return content
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file} cannot be read: {error}") from error


def _idx_array(file: Path) -> Pixels:
    """The bytes of an idx file: 0 0 8 D, then D sizes as big-endian 32-bit numbers, then the data."""
    content = _unpacked(file)
    dims = content[3] if content[:3] == b"\0\0\x08" and len(content) > 3 else 0
    if dims not in (1, 3):
        raise DataError(f"{file} is not an idx file of bytes: it begins with {content[:4].hex() or 'nothing'}")
    sizes = [int.from_bytes(content[4 * d : 4 * d + 4], "big") for d in range(1, dims + 1)]
    expected = 4 + 4 * dims + math.prod(sizes)
    if len(content) != expected:
        raise DataError(f"{file} is damaged: expected {expected} bytes once unpacked, found {len(content)}")
    return np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * dims).reshape(sizes)


@lru_cache(maxsize=8)
def _idx_side(file: Path, set_hash: str) -> int:
    """Side of the images in a file of a set with that hash."""
    images = _idx_array(file)
    if images.ndim != 3 or images.shape[1] != images.shape[2]:
        raise DataError(f"{file} holds no square images: its sizes are {images.shape}")
    return images.shape[1]


def _idx(images: ImageSet) -> tuple[Pixels, Ids, NDArray[np.bool_]]:
    arrays = [_idx_array(file) for file in images.files]
    for i in (0, 2):
        if len(arrays[i]) != len(arrays[i + 1]):
            raise DataError(
                f"{images.files[i]} has {len(arrays[i])} images, {images.files[i + 1].name} {len(arrays[i + 1])} labels"
            )
        if arrays[i].shape[1:] != arrays[0].shape[1:]:
            raise DataError(f"{images.files[i]} holds images of another size than {images.files[0].name}")
        _in_range(arrays[i + 1].astype(np.int64), images.classes, images.files[i + 1])
    labels = np.concatenate([arrays[1], arrays[3]]).astype(np.int64)
    return np.concatenate([arrays[0], arrays[2]]), labels, np.arange(len(labels)) >= len(arrays[0])


def _in_range(labels: Ids, classes: int, file: Path) -> None:
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise DataError(f"{file} has a label {labels.max()}, of {classes} classes numbered from 0")


class _Plain(pickle.Unpickler):
    """Reads dictionaries, lists, bytes and NumPy arrays, and refuses everything else: no code of a file is run."""

    def find_class(self, module: str, name: str) -> Any:
        allowed = {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}
        rebuilt = name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray")
        if (module, name) in allowed or rebuilt:
            return super().find_class(module.replace("numpy.core", "numpy._core") if _NEW else module, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


_NEW = int(np.__version__.split(".")[0]) >= 2


def _cifar_batches(images: ImageSet) -> tuple[Pixels, Ids, NDArray[np.bool_]]:
    pixels, labels, test = [], [], []
    for file in images.files:
        rows, answers = _cifar_batch(file)
        _in_range(answers, images.classes, file)
        pixels.append(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        labels.append(answers)
        test.append(np.full(len(answers), file.name.startswith("test")))
    return np.concatenate(pixels), np.concatenate(labels), np.concatenate(test)


def _cifar_batch(file: Path) -> tuple[Pixels, Ids]:
    try:
        batch = _Plain(io.BytesIO(_unpacked(file)), encoding="bytes").load()
        rows, labels = np.asarray(batch[b"data"]), np.asarray(batch[b"labels"], dtype=np.int64)
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{file} is not a batch of CIFAR-10: {error}".splitlines()[0]) from error
    if rows.dtype != np.uint8 or rows.shape != (len(labels), 3072):
        raise DataError(f"{file} has {len(labels)} labels, but pixels of shape {rows.shape} and type {rows.dtype}")
    return rows, labels


def gray(images: Pixels) -> Pixels:
    """ITU-R 601 luma, as PIL and LRA have it: (…, 3) -> (…), rounded; gray images stay as they are."""
    if images.ndim == 3:
        return images
    return ((images.astype(np.uint32) @ np.array([19595, 38470, 7471], dtype=np.uint32) + 0x8000) >> 16).astype(
        np.uint8
    )
