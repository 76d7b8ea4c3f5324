"""Options that cannot be are refused when a task is built, in one line that says what may be."""

import pytest

import tasks

REFUSED = [
    ("mqar", {"pairs": 17}, "mqar: pairs must be at most length / 4 = 16, got 17"),
    ("mqar", {"vocab": 16}, "mqar: pairs must be at most vocab / 2 - 1 = 7"),
    ("mqar", {"power_a": 0}, "mqar: power_a must be above 0"),
    ("selective_copy", {"data": 65}, "selective_copy: data must be at most length = 64, got 65"),
    ("selective_copy", {"vocab": 3}, "selective_copy: vocab must be a whole number of at least 4"),
    ("induction", {"length": 4}, "induction: length must be a whole number of at least 8"),
    ("associative_recall", {"pairs": 27}, "pairs must be at most keys = 26, got 27; or let keys recur: repeats=True"),
    ("mad_in_context_recall", {"length": 33}, "mad_in_context_recall: length must be even, got 33"),
    ("mad_noisy_recall", {"noise": 1}, "mad_noisy_recall: noise must be at least 0 and below 1, got 1"),
    ("mad_noisy_recall", {"noise_vocab": 0}, "mad_noisy_recall: noise = 0.2 needs tokens to draw from"),
    ("mad_noisy_recall", {"vocab": 19}, "mad_noisy_recall: vocab must be a whole number of at least 20"),
    ("mad_fuzzy_recall", {"key_motif": 8}, "mad_fuzzy_recall: key_motif must be at most 7"),
    ("mad_fuzzy_recall", {"length": 18}, "mad_fuzzy_recall: length must be above .* = 18, got 18"),
    ("mad_selective_copy", {"data": 128}, "mad_selective_copy: length must be above .* = 257, got 256"),
    ("mad_compression", {"length": 1}, "mad_compression: length must be a whole number of at least 2"),
    ("mad_memorization", {"length": 31}, "mad_memorization: length must be even, got 31"),
    ("sort", {"vocab": 1}, "sort: vocab must be a whole number of at least 2"),
    ("sort", {"shortest": 17}, "sort: shortest must be at most length = 16, got 17"),
    ("addition", {"digits": 2, "shortest": 3}, "addition: shortest must be at most digits = 2, got 3"),
    ("pathfinder", {"side": 48}, "pathfinder: side must be 32, 64 or 128, got 48"),
    ("pathfinder", {"contour": 15}, "pathfinder: contour must be at most 14"),
    ("pathfinder", {"contour": 3}, "pathfinder: contour must be a whole number of at least 4"),
    ("pathfinder", {"patch": 5}, "pathfinder: patch must divide 32"),
    ("pixels", {"pool": 3}, "pixels: pool must divide 28, got 3"),
    ("pixels", {"patch": 5}, "pixels: patch must divide 28"),
    ("pixels", {"pool": 2, "patch": 4}, "pixels: patch must divide 14"),
    ("pixels", {"patch": 28}, "pixels: patch must divide 28"),
    ("listops", {"max_length": 21}, "listops: max_length must be a whole number of at least 22, got 21"),
    ("listops", {"max_depth": 1}, "listops: max_depth must be a whole number of at least 2"),
    ("listops", {"max_args": 1}, "listops: max_args must be a whole number of at least 2"),
    ("listops", {"max_depth": 2}, "give at most 7 tokens, min_length asks for more than 20: raise max_depth or"),
    ("parity", {"longest_train": 8}, "parity: longest_train must be a whole number of at least 9, got 8"),
    ("parity", {"longest_train": 50}, "parity: shortest_test must be a whole number of at least 51, got 41"),
    ("parity", {"longest_test": 40}, "parity: longest_test must be a whole number of at least 41, got 40"),
    ("word_problem", {"group": "D8"}, "word_problem: group must be one of S3, S5, A5, A4xZ5, Z60, Z2, got 'D8'"),
    ("word_problem", {"length": 1}, "word_problem: length must be a whole number of at least 2"),
    ("word_problem", {"group": "S3", "length": 4}, "word_problem: S3 has only 1296 sequences of 4; raise length"),
    ("imdb", {"length": 63}, "imdb: length must be a whole number of at least 64, got 63"),
    ("imdb", {"tokens": "words"}, "imdb: tokens must be 'bytes', got 'words'"),
    ("retrieval", {"length": 4001}, r"retrieval: length must be at most 4000 \(half of the shortest page\), got 4001"),
    ("pairs", {"tokens": "words"}, "pairs: tokens must be one of characters, bytes, got 'words'"),
    ("pairs", {"path": "a.csv", "hub": "a/b"}, "pairs takes `path` or `hub`, not both"),
    ("pairs", {"source": "de"}, "pairs: `source` names a column of a table: give its `path` or `hub`"),
    ("imdb", {"hub": "imdb"}, "imdb: hub must be owner/name, or owner/name/folder, got 'imdb'"),
    ("g2p", {"beam": True}, "g2p: beam must be a whole number of at least 1"),
    ("images", {"corpus": "cifar"}, "images: unknown corpus 'cifar'; did you mean 'cifar10'"),
    ("pixels", {"corpus": "cifar10", "path": "x"}, "takes `corpus` or `path`, not both"),
    ("images", {"augment": "mixup"}, "images: augment must be none or crop_flip"),
    ("images", {"patch": 5}, "images: patch must divide 28"),
    ("text", {"path": "my.txt", "corpus": "mine"}, "not both"),
    ("text", {"corpus": "wikipedia_xm"}, "did you mean 'wikipedia_xml'"),
    ("text", {"corpus": "mnist_5k"}, "'mnist_5k' holds images, not text; known: .*wikipedia_xml"),
    ("text", {"length": 0}, "text: length must be a whole number of at least 1, got 0"),
    ("text", {"length": "128"}, "text: length must be a whole number"),
    ("text", {"tokens": "char"}, r"tokens must be one of bytes, .*, got 'char'; did you mean 'characters'"),
    ("masked_text", {"corpus": "nosuch"}, "unknown corpus"),
    ("pixels", {"extrapolate": [2]}, "pixels has one length only"),
    ("pairs", {"extrapolate": [2]}, "pairs has one length only"),
    ("parity", {"extrapolate": [2]}, r"parity is tested at longer lengths .* already"),
    *(
        ("mqar", {"extrapolate": multiples}, r"mqar: extrapolate must be a list of whole numbers such as \[2, 4\]")
        for multiples in ([], 2, [0], [1.5], [True], "4x")
    ),
]


@pytest.mark.parametrize(("name", "options", "message"), REFUSED)
def test_what_cannot_be_is_refused(name, options, message):
    with pytest.raises(ValueError, match=message) as error:
        tasks.build(name, **options)
    assert "\n" not in str(error.value)
