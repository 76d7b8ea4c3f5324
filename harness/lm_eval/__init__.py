"""Language models asked the questions of lm-evaluation-harness (the package `lm_eval`).

scoring.py    log-likelihoods in batches; knows nothing of lm_eval    evaluate.py  the evaluation, as a record keeps it
adapter.py    any language model as lm_eval's `TemplateLM`            questions/   tasks that need no hub
hook.py       makes `lm_eval --model zoobench` known where no entry point does, through zoobench_lm_eval.pth
"""
