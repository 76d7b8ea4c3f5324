"""Signatures by SSH keys."""

import os
import shutil
import subprocess

import pytest

from harness.errors import UserError
from harness.records.signature import SIGNATURE, sign, signer

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")


def test_a_signature_is_checked_against_the_reader_s_own_file(tmp_path, monkeypatch):
    index, key, known = tmp_path / "published.json", tmp_path / "key", tmp_path / "signers"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    index.write_text("{}")
    assert signer(tmp_path) == ""
    sign(index, key)
    monkeypatch.setenv("ZOOBENCH_SIGNERS", str(known))
    with pytest.raises(UserError, match="no file of allowed signers"):
        signer(tmp_path)
    known.write_text("ada@example.org " + key.with_suffix(".pub").read_text())
    assert signer(tmp_path) == "ada@example.org"
    index.write_text('{"other": 1}')
    with pytest.raises(UserError, match=r"signed by ada@example.org, but not this published.json"):
        signer(tmp_path)
    known.write_text("")
    with pytest.raises(UserError, match="signed by nobody in"):
        signer(tmp_path)
    (tmp_path / SIGNATURE).unlink()
    with pytest.raises(UserError, match="--sign: no such key"):
        sign(index, tmp_path / "none")


@pytest.mark.parametrize(
    ("make", "words"),
    [(str, "no such file"), (os.mkdir, "is a directory"), (os.mkfifo, "not a regular file")],
)
def test_a_signature_of_what_cannot_be_read_is_refused(make, words, tmp_path, monkeypatch):
    (tmp_path / "signers").touch()
    monkeypatch.setenv("ZOOBENCH_SIGNERS", str(tmp_path / "signers"))
    (tmp_path / SIGNATURE).touch()
    make(tmp_path / "published.json")
    with pytest.raises(UserError, match=f"published.json: {words}"):
        signer(tmp_path)
