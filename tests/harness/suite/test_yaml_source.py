"""YAML with its places: the line of every key, what is refused, and that a merge keeps the right file and line."""

import pytest

from harness.errors import UserError
from harness.suite.yaml_source import Source, dotted, merge, read

TEXT = """\
# a comment
a: 1
b:
  c: [x, y]
  d:
    - e: 2.5

    - {f: yes, g: null}
"""


@pytest.fixture
def write(tmp_path):
    def make(content, name="s.yaml"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return make


def test_data_is_plain_and_every_key_has_its_line(write):
    path = write(TEXT)
    source = read(path)
    assert source.data == {"a": 1, "b": {"c": ["x", "y"], "d": [{"e": 2.5}, {"f": True, "g": None}]}}
    lines = {dotted(key): line for key, (file, line) in source.places.items() if file == str(path)}
    assert lines == {
        "": 2, "a": 2, "b": 3, "b.c": 4, "b.c.0": 4, "b.c.1": 4, "b.d": 5, "b.d.0": 6, "b.d.0.e": 6, "b.d.1": 8,
        "b.d.1.f": 8, "b.d.1.g": 8,
    }  # fmt: skip


def test_an_error_points_at_the_deepest_known_place(write):
    path = write(TEXT)
    source = read(path)
    assert str(Source({}).error("no", ("a", 0))) == "a.0: no"
    assert str(source.error("no", ("b", "d", 1, "f"))) == f"{path}:8: b.d.1.f: no"
    assert str(source.error("no", ("b", "d", 1, "f", "deeper"))) == f"{path}:8: b.d.1.f.deeper: no"
    assert str(source.error("no", ("z",))) == f"{path}:2: z: no"
    assert str(source.error("two\n lines")) == f"{path}:2: two lines"


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        ("a:\n  b: 1\n  b: 2\n", 3, "b: duplicate key; it already stands on line 2"),
        ("a: *nowhere\n", 1, "is not YAML"),
        ("a: &x 1\n---\nb: 2\n", 2, "is not YAML"),
        ("a: !!python/object:os.system 1\n", 1, "is not YAML"),
        ("a: 2024-99-99\n", 1, "is not YAML"),
        ("", 1, "mapping of keys"),
        ("- a\n- b\n", 1, "mapping of keys"),
        ("\n\nword\n", 3, "mapping of keys"),
        ("? {a: 1}\n: 2\n", 1, "single word"),
        (b"\x7fELF\x02\x01\x01\x00", None, "is not YAML"),
        (b"a: \xff\n", None, "is not UTF-8 text"),
        (b"a: \x00\n", None, "is not YAML"),
        ("a: &a [*a]\n", None, "is not YAML: an alias contains itself"),
    ],
)
def test_what_is_refused(content, line, message, write):
    path = write(content)
    with pytest.raises(UserError, match=message) as raised:
        read(path)
    assert str(raised.value).startswith(f"{path}:{line}: " if line else f"{path}: ")
    assert "\n" not in str(raised.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read(tmp_path / "no.yaml")
    with pytest.raises(UserError, match=r"cannot be read: .*irectory"):
        read(tmp_path)


LEVELS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
)
LONG = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 400))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (LEVELS, "has more than 100,000 values once aliases are filled in"),
        (LONG, "is nested over 50 deep"),
        ("a: " + "[" * 5000, "nested too deeply"),
        ("a: [" + "1, " * 99_999 + "1]\n", "Has more than 131,072 bytes"),
        ("a: 0x" + "F" * 9000, "has too many digits"),
        ("a: 2024-01-01", "is read as a date: put it in quotes"),
        ('a: "\\ud800"', "is not YAML"),
        ("a: !!bool x", "'x' is no bool"),
    ],
)
def test_what_is_too_large_or_no_json_is_refused(content, message, write):
    with pytest.raises(UserError, match=message):
        read(write(content))


def test_anchors_aliases_and_merge_keys(write):
    source = read(write("base: &b {x: 1}\nother: *b\n"))
    assert source.data == {"base": {"x": 1}, "other": {"x": 1}}
    assert source.places[("other",)][1] == 2


def test_merge_replaces_lists_merges_mappings_and_keeps_places(write):
    base = write("a: 1\nm:\n  x: [1, 2]\n  y: 3\n", "base.yaml")
    over = write("# shifted\n\nm: {x: [9], z: 4}\nn: 5\n", "over.yaml")
    merged = merge(read(base), read(over))
    assert merged.data == {"a": 1, "m": {"x": [9], "y": 3, "z": 4}, "n": 5}
    places = {"a": (base, 1), "m.y": (base, 4), "m.x": (over, 3), "m.x.0": (over, 3), "n": (over, 4)}
    found = {dotted(key): place for key, place in merged.places.items()}
    assert {key: found[key] for key in places} == {key: (str(file), line) for key, (file, line) in places.items()}
    assert "m.x.1" not in found


def test_put_makes_the_way_replaces_what_stood_below_and_remembers_who_asked(write):
    source = read(write(TEXT))
    source.put(("new", "deep"), 3, "--set")
    source.put(("b", "d"), [1], "--set")
    assert source.data == {"a": 1, "b": {"c": ["x", "y"], "d": [1]}, "new": {"deep": 3}}
    assert str(source.error("no", ("new", "deep"))) == "--set: new.deep: no"
    assert str(source.error("no", ("b", "d", 1, "f"))) == "--set: b.d.1.f: no"
