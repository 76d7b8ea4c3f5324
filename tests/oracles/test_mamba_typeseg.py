"""A trained Mamba: the segmenter in the wheel typeseg, its own NumPy model with our scan in the place of its loop.

Its blocks depart from Mamba's (tied scans in both directions, a centred convolution, Δ + 1e-4, biases), so the scan is
what is compared: in six layers, on trained Δ, A, B, C, up to the labels of a text.
"""

from importlib.resources import files

import numpy as np
import pytest
import torch

from zoo.ops.selective_scan import selective_scan

typeseg = pytest.importorskip("typeseg")
TEXT = b'<p class="a">1 + 1 = 2</p><script>let x = [1, 2];</script> {"k": null}\nSELECT a FROM b;\n'


def ours(xp, u, dt, B, C, A, D):
    u, dt, B, C = (torch.from_numpy(np.ascontiguousarray(x))[None] for x in (u, dt, B, C))
    return selective_scan(u, dt, torch.from_numpy(A), B, C, torch.from_numpy(D))[0][0].numpy()


def test_trained_model(oracle):
    kernel = pytest.importorskip("typeseg._mamba_kernel")
    with np.load(str(files("typeseg") / "data" / "mamba_al.npz")) as stored:
        weights = {name.replace("__", "/"): stored[name] for name in stored.files}
    tokens = np.frombuffer(TEXT, np.uint8)
    want = torch.from_numpy(kernel.mamba_forward(np, weights, tokens))
    got = torch.from_numpy(kernel.mamba_forward(np, weights, tokens, scan=ours))
    assert len(want.argmax(-1).unique()) > 1, "the text should have more than one label"
    oracle("mamba", "typeseg 0.2.7, trained segmenter").outputs(got, want)
    assert torch.equal(got.argmax(-1), want.argmax(-1))
