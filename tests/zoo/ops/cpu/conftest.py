"""Tests of compiled loops, which are nowhere without a compiler."""

from zoo.ops import forms

collect_ignore_glob = [] if forms.available() else ["test_*.py"]
