"""What a run is still to be asked, and how answers of several times stand in one record."""

from harness.lm_eval.answer import lacking, store

TERMS = {"limit": None, "fewshot": None, "max_length": None}


def found(*names, package="0.4.13"):
    return {"package": package, "seconds": 2.0, "tasks": {name: {"samples": 3} for name in names}, "groups": {}}


def test_only_what_is_lacking_is_asked():
    record = store({"run_id": "r"}, ["a"], TERMS, found("a"))
    assert lacking({"run_id": "r"}, ["a", "b"], TERMS) == ["a", "b"]
    assert lacking(record, ["a", "b"], TERMS) == ["b"]
    assert lacking(record, ["a"], {**TERMS, "limit": 5}) == ["a"], "other terms, other answers"


def test_answers_on_the_same_terms_stand_together():
    record = store({"run_id": "r"}, ["a"], TERMS, found("a"))
    both = store(record, ["group"], TERMS, found("b", "c"))["lm_eval"]
    assert set(both["tasks"]) == {"a", "b", "c"}
    assert (both["names"], both["seconds"]) == (["a", "group"], 4.0)


def test_answers_on_other_terms_or_by_another_version_replace_them():
    record = store({"run_id": "r"}, ["a"], TERMS, found("a"))
    for later in (
        store(record, ["b"], {**TERMS, "limit": 5}, found("b")),
        store(record, ["b"], TERMS, found("b", package="0.5")),
    ):
        assert set(later["lm_eval"]["tasks"]) == {"b"}
        assert later["lm_eval"]["names"] == ["b"]
