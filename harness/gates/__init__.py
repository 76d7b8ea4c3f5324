"""Gates that a trained model passes before its row is ranked, each with the number it measured.

A gate is a function registered by `harness.gates.registry.gate` in any module of this package. Names and reasons:
`registry.gates()`; the judging: `judge.judge`.
"""
