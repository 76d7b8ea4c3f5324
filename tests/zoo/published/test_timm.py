"""Models of timm behind our interface: the logits are timm's own, and what does not fit is said in one line."""

import argparse
import json
import sys

import pytest
import torch
from safetensors.torch import save_file

import zoo
from tasks.images.patches import cut
from tests.zoo.models import logits, refused
from zoo.types import Batch

NAMES = ["mixer_s32_224", "vit_tiny_patch16_224", "gmlp_ti16_224"]
SMALL = {"img_size": 32, "num_classes": 10}
RESMLP = {"stem.": "patch_embed.", "linear_tokens": "attn", "mlp_channels": "mlp", "ls1": "gamma_1", "ls2": "gamma_2"}
OFF = "weights= takes a file, random=True none"


@pytest.fixture(autouse=True, scope="module")
def timm():
    """Takes two seconds to import: not while tests are collected."""
    return pytest.importorskip("timm")


@pytest.fixture(autouse=True)
def no_hub(monkeypatch, tmp_path):
    """The hub is never asked, and its cache is empty."""
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))


def theirs(name, seed=3, **options):
    """A model of timm with every weight random: initial ones hide layers that start at 0."""
    import timm

    torch.manual_seed(seed)
    network = timm.create_model(name, **options).eval()
    for value in network.parameters():
        torch.nn.init.normal_(value, std=0.05)
    return network


def images(side=32, channels=3, count=2):
    return torch.randn(count, channels, side, side, generator=torch.Generator().manual_seed(5))


def folder(path, network, name, **changes):
    """A folder in timm's format."""
    path.mkdir()
    config = {key: value for key, value in network.pretrained_cfg.items() if key not in ("url", "hf_hub_id")}
    content = {"architecture": name, "num_classes": network.num_classes, "pretrained_cfg": config, **changes}
    (path / "config.json").write_text(json.dumps(content))
    save_file(network.state_dict(), path / "model.safetensors")
    return path


@pytest.mark.parametrize("name", NAMES)
def test_random_weights_at_full_size(timm, name):
    torch.manual_seed(1)
    network = timm.create_model(name).eval()
    torch.manual_seed(1)
    model = zoo.load(f"timm/{name}", random=True)
    x = images(224, count=1)
    with torch.no_grad():
        assert torch.equal(logits(model, x), network(x))
    assert (model.role, model.shape.outputs, model.traits.causal, model.traits.resumable) == ("classify", 1000, "no", 0)
    assert model.shape.length * model.shape.features == 3 * 224 * 224
    assert [p.shape for p in model.parameters()] == [p.shape for p in network.parameters()]
    assert not model.training


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "gmlp_ti16_224", "test_resnet"])
def test_a_checkpoint_on_disk(name, tmp_path):
    network = theirs(name, **{key: value for key, value in SMALL.items() if name != "test_resnet" or key != "img_size"})
    save_file(network.state_dict(), tmp_path / "x.safetensors")
    wrapped = {f"module.{key}": value for key, value in network.state_dict().items()}
    torch.save({"state_dict": wrapped, "epoch": 3, "args": argparse.Namespace(lr=0.1)}, tmp_path / "x.pth")
    torch.save({"model": network.state_dict()}, tmp_path / "y.pth")
    want = network(images()).detach()
    torch.manual_seed(0)
    for file in ("x.safetensors", "x.pth", "y.pth"):
        model = zoo.load(f"timm/{name}", weights=str(tmp_path / file), size=32)
        assert torch.equal(logits(model, images()), want)
        assert model.shape.outputs == 10
    drawn = torch.rand(())
    assert drawn == torch.rand((), generator=torch.Generator().manual_seed(0)), "the global generator is left alone"


def test_a_folder_in_the_format_of_the_hub(tmp_path):
    network = theirs("vit_tiny_patch16_224", **SMALL)
    path = folder(tmp_path / "x", network, "vit_tiny_patch16_224", model_args={"img_size": 32})
    want = network(images()).detach()
    for where in (str(path), f"local-dir:{path}", f"timm:{path}"):
        assert torch.equal(logits(zoo.load(where), images()), want)
    assert zoo.load(path).size == (32, 32)
    assert not torch.equal(logits(zoo.load(path, random=True), images()), want)


def test_a_folder_that_timm_itself_wrote(timm, tmp_path):
    network = theirs("vit_tiny_patch16_224", **SMALL)
    timm.models.save_for_hf(network, tmp_path / "x", model_args={"img_size": 32, "num_classes": 10})
    model = zoo.load(tmp_path / "x")
    assert torch.equal(logits(model, images()), network(images()).detach())
    again = timm.create_model(f"local-dir:{tmp_path / 'x'}", pretrained=True).eval()
    assert torch.equal(logits(model, images()), again(images()).detach())


def test_weights_in_the_cache_of_the_hub(tmp_path):
    name = "vit_tiny_patch16_224.augreg_in21k"
    network = theirs(name)
    snapshot = tmp_path / "cache" / f"models--timm--{name}" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0" * 40)
    save_file(network.state_dict(), snapshot / "model.safetensors")
    model = zoo.load(f"timm/{name}")
    x = images(224, count=1)
    assert model.shape.outputs == 21843
    assert torch.equal(logits(model, x), network(x).detach())
    refused(f"timm/{name}", "classes=21843 fits", classes=10)


def test_other_channels_and_sizes_are_adapted_as_timm_does(timm, tmp_path):
    network = theirs("vit_tiny_patch16_224", **SMALL)
    save_file(network.state_dict(), tmp_path / "x.safetensors")
    overlay = {"state_dict": network.state_dict(), "num_classes": 10, "input_size": (3, 32, 32)}
    want = timm.create_model(
        "vit_tiny_patch16_224", pretrained=True, pretrained_cfg_overlay=overlay, img_size=48, in_chans=1
    ).eval()
    model = zoo.load("timm/vit_tiny_patch16_224", weights=str(tmp_path / "x.safetensors"), size=48, channels=1)
    assert torch.equal(logits(model, images(48, 1)), want(images(48, 1)).detach())


def test_names_of_another_project_are_translated(tmp_path):
    """ResMLP as Meta published it: timm renames its layers."""
    network = theirs("resmlp_12_224", **SMALL)
    official = {}
    for name, value in network.state_dict().items():
        for ours, metas in RESMLP.items():
            name = name.replace(ours, metas)
        official[name] = value.flatten() if name.endswith(("alpha", "beta")) else value
    assert official.keys() != network.state_dict().keys()
    torch.save(official, tmp_path / "x.pth")
    model = zoo.load("timm/resmlp_12_224", weights=str(tmp_path / "x.pth"), size=32)
    assert torch.equal(logits(model, images()), network(images()).detach())


@pytest.mark.parametrize("patch", [2, 4, 8])
def test_patches_make_the_image_they_were_cut_from(patch):
    torch.manual_seed(0)
    model, x = zoo.load("timm/vit_tiny_patch16_224", random=True, size=32, classes=10), images()
    patches = torch.from_numpy(cut(x.permute(0, 2, 3, 1).numpy(), patch))
    assert patches.shape == (2, (32 // patch) ** 2, 3 * patch**2)
    assert torch.equal(model.image(patches), x)
    assert torch.equal(logits(model, patches), logits(model, x))


@pytest.fixture(scope="module")
def small():
    return zoo.load("timm/gmlp_ti16_224", random=True, size=32, classes=10)


def test_gray_patches_of_another_size(small):
    gray = images(28, 1)
    pixels, patches = (torch.from_numpy(cut(gray[:, 0].numpy(), p)) for p in (1, 4))
    want = torch.nn.functional.interpolate(gray, 32, mode="bilinear").expand(-1, 3, -1, -1)
    for sequence in (pixels, patches):
        assert torch.allclose(small.image(sequence), want, atol=1e-5)
    flat = torch.full((1, 64 * 64, 1), 0.25)
    assert torch.allclose(small.image(flat), torch.full((1, 3, 32, 32), 0.25))


@pytest.mark.parametrize(
    ("inputs", "line"),
    [
        (torch.zeros(2, 50, 16), "50 patches do not make a square image"),
        (torch.zeros(2, 64, 7), "7 numbers are no square patch of 3 or 1 channels"),
        (torch.zeros(2, 64, 0), "0 numbers"),
        (torch.zeros(2, 3, 28, 28), "images of 3 × 32 × 32"),
        (torch.zeros(2, 1, 32, 32), "not 1 × 32 × 32"),
        (torch.zeros(2, 64, dtype=torch.long), "not int64 of"),
    ],
)
def test_inputs_that_are_no_image_of_its_kind(small, inputs, line):
    with pytest.raises(ValueError, match=line):
        small(Batch(inputs=inputs))


def test_part_of_an_image_is_refused(small):
    with pytest.raises(ValueError, match="whole images"):
        small(Batch(inputs=torch.zeros(1, 4, 3), mask=torch.tensor([[True, True, True, False]])))


def test_a_checkpoint_of_another_shape(tmp_path):
    file = str(tmp_path / "x.safetensors")
    save_file(theirs("gmlp_ti16_224", **SMALL).state_dict(), file)
    said = "head.weight has the shape (10, 128), where 7 classes need (7,"
    refused("timm/gmlp_ti16_224", said, weights=file, classes=7)
    refused("timm/gmlp_ti16_224", "classes=10 fits", weights=file, classes=7)
    refused("timm/gmlp_ti16_224", "; size= and channels= change the model", weights=file)
    refused("timm/vit_tiny_patch16_224", "not the weights of this model", weights=file)


def test_damaged_folders(tmp_path):
    (tmp_path / "x").mkdir()
    network = theirs("gmlp_ti16_224", **SMALL)
    refused(f"local-dir:{tmp_path / 'x'}", "no config.json")
    refused(f"local-dir:{tmp_path / 'y'}", "no such file")
    refused(folder(tmp_path / "z", network, "mixer_s33_224"), "did you mean 'mixer_s32_224'?")
    refused(folder(tmp_path / "u", network, "mixer_s32_224", pretrained_cfg=3), "must be mappings")
    refused(folder(tmp_path / "v", network, "mixer_s32_224", model_args={"nonsense": 1}), "timm cannot make")


@pytest.mark.parametrize(
    ("where", "options", "line"),
    [
        ("timm/vit_tinny_patch16_224", {}, "timm knows no model 'vit_tinny_patch16_224'; did you mean 'vit_"),
        ("timm/??", {}, "timm.list_models() names them all"),
        ("timm/mixer_b16_224.goog_in22k", {}, "did you mean 'goog_in21k'?"),
        ("timm/vit_tiny_patch16_224", {}, OFF),
        ("timm/mixer_s32_224", {}, "were never published by timm; " + OFF),
        ("timm/gcvit_base.in1k", {}, "not on the hub but at https://"),
        ("timm/mixer_s32_224", {"random": True, "weights": "x"}, "goes without weights="),
        ("timm/mixer_s32_224", {"random": True, "size": 0}, "size must be at least 1"),
        ("timm/mixer_s32_224", {"random": True, "size": 40}, "multiple of 32"),
        ("timm/mixer_s32_224", {"random": True, "classes": "ten"}, "classes must be a whole number or none"),
        ("timm/mixer_s32_224", {"random": True, "nonsense": 1}, "nonsense"),
        ("timm/vit_small_patch14_dinov2", {"random": True}, "it has no classes"),
    ],
)
def test_what_cannot_be_had(where, options, line):
    refused(where, line, **options)


def test_without_timm(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    refused("timm/mixer_s32_224", "timm/mixer_s32_224 needs timm: pip install 'zoobench[vision]'")
