"""Users' folders of images: every layout gives the same images, and damage is told in one line that names the file."""

import gzip
import pickle
import sys
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

import tasks
from tasks import DataError
from tasks.base import SPLITS
from tasks.images import sets

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (120, 28, 28), dtype=np.uint8)
LABELS = (np.arange(120) % 10).astype(np.uint8)
COLOUR = RNG.integers(0, 256, (6, 20, 3072), dtype=np.uint8)
ANSWERS = RNG.integers(0, 10, (6, 20))


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes() + array.tobytes()


@pytest.fixture
def mnist(tmp_path):
    """100 training images, of which one is a test image too and one stands there twice, and 20 of the test."""
    pixels = PIXELS.copy()
    pixels[7], pixels[9] = pixels[110], pixels[8]
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, places in (("train", slice(0, 100)), ("t10k", slice(100, 120))):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx(pixels[places]))
        (raw / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(LABELS[places])))
    return tmp_path


def test_idx(mnist):
    found = [sets.of_folder(mnist / below) for below in ("", "MNIST", "MNIST/raw")]
    assert len({f.hash for f in found}) == 1
    assert (found[0].side, found[0].channels, found[0].classes) == (28, 1, 10)
    content = found[0].read()
    assert [b - a for a, b in map(content.borders.get, SPLITS)] == [88, 2, 8, 20]
    told = {image.tobytes(): label for image, label in zip(PIXELS, LABELS, strict=True)}
    assert all(told.get(i.tobytes()) == y for i, y in zip(content.images, content.labels, strict=True))
    first, last = content.borders["test"]
    assert {i.tobytes() for i in content.images[first:last]} == {i.tobytes() for i in PIXELS[100:]}
    assert max(Counter(i.tobytes() for i in content.images).values()) == 1


def test_pixels_reads_it_as_mnist(mnist):
    task = tasks.build("pixels", path=str(mnist), pool=4)
    batch = task.examples("test", np.arange(20), 0)
    content = task.source.read()
    mean = content.images[content.borders["test"][0], 12:16, 16:20].mean() / 255
    assert batch.inputs[0, 3 * 7 + 4, 0] == pytest.approx((mean - 0.1307) / 0.3081, abs=1e-5)
    assert task.fingerprint != tasks.build("pixels", pool=4).fingerprint


def damaged(file, change):
    file.write_bytes(change(file.read_bytes()))


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("train-images-idx3-ubyte", lambda b: b[:-5], "train-images-idx3-ubyte is damaged: expected 78416 bytes"),
        ("train-images-idx3-ubyte", lambda b: b[:9], "train-images-idx3-ubyte is damaged"),
        ("train-images-idx3-ubyte", lambda b: b"", "train-images-idx3-ubyte is not an idx file"),
        ("t10k-images-idx3-ubyte", lambda b: idx(PIXELS[:19]), "has 19 images, t10k-labels-idx1-ubyte.gz 20 labels"),
        ("t10k-images-idx3-ubyte", lambda b: idx(PIXELS[:20, :5, :5]), "another size"),
        ("t10k-labels-idx1-ubyte.gz", lambda b: gzip.compress(idx(LABELS[:20] + 3)), "has a label 12, of 10 classes"),
        ("train-labels-idx1-ubyte.gz", lambda b: gzip.compress(idx(LABELS[:100] + 70)), "a label 79, of 10 classes"),
        ("train-labels-idx1-ubyte.gz", lambda b: b[:-9], "train-labels-idx1-ubyte.gz cannot be read"),
    ],
)
def test_damaged_idx(mnist, file, change, message):
    damaged(mnist / "MNIST" / "raw" / file, change)
    with pytest.raises(DataError, match=message) as error:
        sets.of_folder(mnist).read()
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(mnist):
    (mnist / "MNIST" / "raw" / "t10k-images-idx3-ubyte").unlink()
    with pytest.raises(DataError, match="lacks t10k-images-idx3-ubyte"):
        sets.of_folder(mnist)


def test_a_changed_file_changes_the_fingerprint(mnist):
    before = sets.of_folder(mnist).hash
    damaged(mnist / "MNIST" / "raw" / "train-images-idx3-ubyte", lambda b: b[:-1] + b"x")
    assert sets.of_folder(mnist).hash != before


@pytest.fixture
def cifar(tmp_path):
    for i, name in enumerate([f"data_batch_{n}" for n in range(1, 6)] + ["test_batch"]):
        batch = {b"data": COLOUR[i], b"labels": ANSWERS[i].tolist(), b"filenames": [b"a"] * 20}
        (tmp_path / name).write_bytes(pickle.dumps(batch, protocol=2))
    return tmp_path


def test_cifars_batches(cifar):
    content = sets.of_folder(cifar).read()
    assert content.images.shape == (120, 32, 32, 3)
    assert content.borders["test"] == (100, 120)
    told = {image.tobytes(): label for image, label in zip(content.images, content.labels, strict=True)}
    for i, j in np.ndindex(6, 20):
        assert told[np.moveaxis(COLOUR[i, j].reshape(3, 32, 32), 0, 2).tobytes()] == ANSWERS[i, j]


class Evil:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps(Evil()), "asks for builtins.print"),
        (b"no pickle", "is not a batch"),
        (pickle.dumps({b"data": COLOUR[0][:3], b"labels": [1]}), "has 1 labels, but pixels of shape"),
        (pickle.dumps({b"data": COLOUR[0], b"labels": [11] * 20}), "has a label 11"),
    ],
)
def test_a_pickle_runs_no_code(cifar, content, message, capsys):
    (cifar / "data_batch_3").write_bytes(content)
    with pytest.raises(DataError, match=f"data_batch_3.*{message}"):
        sets.of_folder(cifar).read()
    assert capsys.readouterr().out == ""


def test_gray_is_pils(cifar):
    Image = pytest.importorskip("PIL.Image")
    image = sets.of_folder(cifar).read().images[0]
    np.testing.assert_array_equal(sets.gray(image[None])[0], np.asarray(Image.fromarray(image).convert("L")))


@pytest.fixture
def folder(tmp_path):
    Image = pytest.importorskip("PIL.Image")
    for part, places in (("train", range(80)), ("test", range(80, 100))):
        for i in places:
            file = tmp_path / part / ("cat", "dog")[i % 2] / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(COLOUR[i // 20, i % 20].reshape(32, 32, 3)[: 20 + i % 3]).save(file)
    return tmp_path


def test_folders_of_classes(folder):
    pytest.importorskip("timm")
    task = tasks.build("images", path=str(folder), size=16, patch=8)
    assert (task.metric.chance, task.shape.features, task.count("test")) == (0.5, 192, 20)
    batch = task.examples("test", np.arange(20), 0)
    assert (batch.inputs.shape, sorted(batch.targets)) == ((20, 4, 192), [0] * 10 + [1] * 10)
    alone = tasks.build("images", path=str(folder / "train"), size=16, patch=8)
    assert [alone.count(split) for split in ("train", "tune", "valid", "test")] == [56, 4, 8, 12]


def test_bad_folders(folder, tmp_path_factory):
    (folder / "train" / "cat" / "0.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"cat/0.png is not an image"):
        sets.of_folder(folder).read()
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(DataError, match="has images of 0 classes"):
        sets.of_folder(empty)
    with pytest.raises(DataError, match="does not exist"):
        sets.of_folder(empty / "no")
    (empty / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match="stands in no class's folder"):
        sets.of_folder(empty)
    with pytest.raises(ValueError, match="use task images"):
        tasks.build("pixels", path=str(folder))


def test_cifar10_of_the_hub_is_read_from_parquet(monkeypatch):
    Image = pytest.importorskip("PIL.Image")
    import io

    def packed(i: int) -> dict:
        out = io.BytesIO()
        Image.fromarray(COLOUR[i // 20, i % 20].reshape(32, 32, 3)).save(out, "png")
        return {"bytes": out.getvalue(), "path": None}

    tables = {b"train": range(100), b"test": range(100, 120)}

    def read_table(content):
        rows = tables[content.read()]
        columns = {"img": [packed(i) for i in rows], "label": [i % 10 for i in rows]}
        return SimpleNamespace(to_pydict=lambda: columns)

    parquet = SimpleNamespace(read_table=read_table)
    monkeypatch.setitem(sys.modules, "pyarrow", SimpleNamespace(parquet=parquet))
    monkeypatch.setattr(sets.corpora, "load", lambda card: card.name.removeprefix("cifar10_").encode())
    sets._read.cache_clear()
    task = tasks.build("pixels", corpus="cifar10")
    assert task.shape.length == 1024
    assert [task.count(split) for split in ("train", "tune", "valid", "test")] == [90, 2, 8, 20]
    batch = task.examples("test", np.arange(20), 0)
    assert sorted(batch.targets) == sorted(list(range(10)) * 2)
    assert -1 <= batch.inputs.min() < -0.9
    sets._read.cache_clear()
