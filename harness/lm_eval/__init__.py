"""lm-evaluation-harness (the package `lm_eval`), both ways: its tasks asked here, and our models asked by it.

evaluate.py    what a model answers, as a record keeps it     evaluate_runs.py  the same of the runs of a suite
load_tasks.py  lm_eval's tasks by name                        isolation.py      what lm_eval may not touch or print
questions/     tasks that need no hub
adapter.py     our models as lm_eval's `TemplateLM`           hook.py           makes `lm_eval --model zoobench` known
scoring.py     log-likelihoods in batches                     generation.py     continuations
"""
