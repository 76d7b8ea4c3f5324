"""`zoobench bench`: its options, what its rows hold, and that peers have our size."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from harness import bench
from harness.bench import peers, report, session
from harness.bench.subject import Subject
from harness.bench.worker import Worker
from harness.errors import UserError
from harness.site.build import build
from zoo import architectures

RESULTS = Path(__file__).parents[3] / "results"
TINY = ["--width", "16", "--depth", "1", "--repeats", "2", "--seconds", "0", "--threads", "1"]


@pytest.fixture(scope="module")
def rows_of(call):
    return lambda *args: json.loads(call("bench", *args, *TINY, "--json").stdout)


@pytest.fixture(scope="module")
def measured(rows_of, tmp_path_factory):
    """Two rows of an LSTM, and the folder of their files."""
    out = tmp_path_factory.mktemp("bench")
    return rows_of("lstm", "--lengths", "16x2,64x2", "--contexts", "8", "--out", str(out)), out


def test_rows_hold_what_the_design_names(measured):
    rows, _ = measured
    assert [(row["architecture"], row["length"], row["batch"]) for row in rows] == [("lstm", 16, 2), ("lstm", 64, 2)]
    for row in rows:
        assert (row["status"], row["reference"], row["precision"] in ("fp32", "bf16")) == ("ok", "pre_ln", True)
        assert row["train_tokens_per_s"] > 0
        assert row["prefill_tokens_per_s"] > row["train_tokens_per_s"]
        assert 0 < row["fraction_of_peak"] < 1
        assert row["peak_memory_bytes"] > 0
        assert row["time_slope"] is not None
    assert rows[0]["decode_ms_by_context"].keys() == {"8", "16"}
    assert rows[0]["decode_ms_per_token"] == rows[0]["decode_ms_by_context"]["16"]
    assert rows[0]["state_bytes"] == 2 * 16 * 4 + 8  # h, c and the position


def test_files_say_the_same(measured):
    rows, out = measured
    assert json.loads((out / "bench.json").read_text()) == rows
    assert f"{rows[0]['train_tokens_per_s']:,.0f}" in (out / "bench.md").read_text()
    assert (out / "time.png").stat().st_size > 5000


def test_a_site_shows_what_was_measured(measured, tmp_path):
    rows, out = measured
    for file in ("records.parquet", "curves.parquet", "published.json"):
        (tmp_path / "results" / "quick").mkdir(parents=True, exist_ok=True)
        shutil.copy(RESULTS / "quick" / file, tmp_path / "results" / "quick")
    shutil.copytree(out, tmp_path / "results" / "speed")
    build(tmp_path / "site", root=tmp_path / "results")
    page = (tmp_path / "site" / "speed.html").read_text()
    assert f"{rows[0]['train_tokens_per_s']:,.0f}" in page
    spec = json.loads(re.search(r'id="lengths">(.*?)</script>', page).group(1))
    points = [point for points in spec["datasets"].values() for point in points]
    assert {point["length"] for point in points} == {16, 64}
    assert 'href="speed.html"' in (tmp_path / "site" / "index.html").read_text()


def test_what_is_no_language_model_decodes_nothing(rows_of):
    (row,) = rows_of("linformer", "--lengths", "16x1", "--reference", "none")
    assert (row["role"], row["status"]) == ("classify", "ok")
    assert row["decode_ms_per_token"] is row["state_bytes"] is None


def test_a_role_that_cannot_be_played_is_a_row_that_says_so(rows_of):
    (row,) = rows_of("linformer", "--role", "lm", "--lengths", "16x1")
    assert row["status"] == "unsupported"
    assert "causal" in row["reason"]
    assert row["train_tokens_per_s"] is None


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (("pre_nl",), "pre_ln"),
        (("pre_ln", "--lengths", "256y8"), "--lengths"),
        (("pre_ln", "--lengths", "0"), "--lengths"),
        (("pre_ln", "--reference", "post_nl"), "post_ln"),
        (("pre_ln", "--set", "headz=2"), "headz"),
        (("pre_ln", "--set", "heads"), "key=value"),
        (("pre_ln", "--plugin", "nowhere.py"), "nowhere.py"),
    ],
)
def test_bad_input_is_one_line(args, named, call):
    said = call("bench", *args, *TINY, status=2).stderr
    assert named in said
    assert said.count("\n") == 1


def test_lengths_bring_their_batch_or_get_one():
    assert bench.parse_settings(lengths="256x8,2048,16384").lengths == ((256, 8), (2048, 2), (16384, 1))
    with pytest.raises(UserError, match="context"):
        bench.parse_settings(lengths="256", contexts="many")


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_slope_is_the_exponent(power):
    lengths = [1024, 2048, 16384]
    assert session.slope(lengths, [3e-5 * length**power for length in lengths]) == pytest.approx(power)


def test_the_spread_is_half_the_range_of_turns_over_their_median():
    assert session._spread([[0.2 * drift] * 3 for drift in (1.0, 2.9, 8.1)]) == pytest.approx((8.1 - 1) / 2 / 2.9)


@pytest.mark.parametrize(
    "peer", [pytest.param(name, marks=pytest.mark.cuda if peer.gpu else ()) for name, peer in peers.PEERS.items()]
)
def test_a_peer_has_as_many_parameters_and_gives_logits(peer):
    about = peers.PEERS[peer]
    for name in about.implements:
        assert architectures.recipe(name, **about.options).mixer
        if about.installed is None:
            pytest.skip(f"{about.package} is not installed")
        ours = Subject(name, 128, 2, "fp32", role=about.role, width=128, options=about.options)
        device, dtype = ("cuda", torch.bfloat16) if about.gpu else ("cpu", torch.float32)
        params = sum(p.numel() for p in ours.build("cpu").parameters())
        theirs = peers.match(Subject(name, 128, 2, "fp32", role=about.role, width=128, peer=peer, params=params))
        model = theirs.build(device)
        assert sum(p.numel() for p in model.parameters()) == pytest.approx(params, rel=peers.TOLERANCE)
        batch = ours.example().tensors(torch.device(device))
        with torch.autocast(device, dtype, enabled=about.gpu):
            assert model(batch).shape == (*batch.targets.shape, 256)


def test_beside_a_peer(rows_of):
    (row,) = rows_of("lstm", "--lengths", "16x1", "--peers", "--reference", "none")
    assert row["peer"] == "torch LSTM"
    assert 0 < row["ratio"] < float("inf")
    assert abs(row["peers"][0]["params_mismatch"]) < 0.05


def test_a_peer_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(peers.Peer, "installed", None)
    ours = Worker(Subject("rwkv4", 16, 1, "fp32"), process=None, pipe=None, facts={"params": 1})
    started, problems = session._start_peers(ours, start=None, report=print)
    row = {"architecture": "rwkv4", "length": 16, "batch": 1, "role": "lm", "status": "ok"}
    row |= session._compare(ours, started, problems)
    assert row["peer"] is row["ratio"] is None
    assert "zoobench[oracles]" in row["peers_missing"]["transformers RWKV-4"]
    assert any("zoobench[oracles]" in note for note in report.notes([row]))
