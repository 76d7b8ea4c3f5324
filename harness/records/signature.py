"""Signatures of published suites by SSH keys, made and checked by `ssh-keygen -Y` as git does.

What is signed is published.json, which has the hashes of the other files; the signature lies beside it. Who signs is
known by the reader's own file of allowed signers: $ZOOBENCH_SIGNERS, else `gpg.ssh.allowedSignersFile` of their git.
"""

import os
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from harness.errors import UserError, os_error
from harness.records.published import INDEX
from zoo import files

SIGNATURE = f"{INDEX}.sig"
NAMESPACE = "zoobench"
"""What a signature is for: one made for commits is none here."""
LARGEST = 1 << 16
"""Bytes of a signature."""
SECONDS = 60
"""For how long a signature is checked at most; to sign may take its owner's own time."""


def sign(index: Path, key: Path) -> Path:
    """Sign a published.json with an SSH key, private or public with its private half in an agent; the signature's file.

    Raises:
        UserError: there is no such key, or ssh-keygen is not here or refuses.
    """
    if not key.is_file():
        raise UserError("no such key", file=key, key="--sign")
    made = _keygen("sign", "-n", NAMESPACE, "-f", str(key.resolve()), about=index)
    if made.returncode:
        raise UserError(f"ssh-keygen does not sign: {_said(made)}", file=key, key="--sign")
    file = index.with_name(SIGNATURE)
    files.write(file, made.stdout)
    return file


def signer(folder: Path) -> str:
    """Who signed what lies in a folder, as the reader knows them; empty where nobody did.

    Raises:
        UserError: the signature or what it signs cannot be read, it is another file's or nobody's that the reader
            knows, or it cannot be checked here.
    """
    index, file, known = folder / INDEX, folder / SIGNATURE, allowed_signers()
    if not os.path.lexists(file):
        return ""
    if known is None:
        raise UserError("signed, but no file of allowed signers is known; see $ZOOBENCH_SIGNERS", file=file)
    signature = _read(file, LARGEST)
    with TemporaryDirectory() as name:  # paths of our own: those of others may look like options
        copy = Path(name, "signature")
        copy.write_bytes(signature)
        given = ("-f", str(known.resolve()), "-s", str(copy))
        found = _keygen("find-principals", *given, about=index)
        who = found.stdout.decode(errors="replace").partition("\n")[0].partition(",")[0].strip()
        if found.returncode or not who:
            raise UserError(f"signed by nobody in {known}", file=file)
        checked = _keygen("verify", *given, "-I", who, "-n", NAMESPACE, about=index)
    if checked.returncode:
        raise UserError(f"signed by {who}, but not this {INDEX}: {_said(checked)}", file=file)
    return who


def allowed_signers() -> Path | None:
    """The reader's own file of signers; None where there is none."""
    named = os.environ.get("ZOOBENCH_SIGNERS", "")
    if not named:  # of git, an absolute path: a relative one is of whatever folder one stands in
        asked = ["git", "config", "--global", "--type=path", "--get", "gpg.ssh.allowedSignersFile"]
        try:
            found = subprocess.run(asked, capture_output=True, text=True, timeout=10).stdout.strip()
            named = found if os.path.isabs(found) else ""
        except (OSError, subprocess.TimeoutExpired):
            return None
    path = Path(named).expanduser()
    return path if named and path.is_file() else None


def _keygen(what: str, *options: str, about: Path) -> "subprocess.CompletedProcess[bytes]":
    """What `ssh-keygen -Y` answers about the bytes of a file."""
    content, seconds = _read(about, files.MOST_JSON), None if what == "sign" else SECONDS
    try:
        command = ["ssh-keygen", "-Y", what, *options]
        return subprocess.run(command, input=content, capture_output=True, timeout=seconds)
    except FileNotFoundError:
        raise UserError("signatures need ssh-keygen, of OpenSSH 8.9 or newer, which is not here") from None
    except subprocess.TimeoutExpired:
        raise UserError(f"ssh-keygen does not answer within {seconds} s", file=about) from None


def _read(file: Path, most: int) -> bytes:
    """The bytes of a file that somebody else wrote."""
    try:
        return files.read_bytes(file, most)
    except OSError as error:
        raise UserError(os_error(error)) from None


def _said(done: "subprocess.CompletedProcess[bytes]") -> str:
    return done.stderr.decode(errors="replace").strip() or f"status {done.returncode}"
