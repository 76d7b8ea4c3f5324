"""Language models asked the questions of lm-evaluation-harness (the package `lm_eval`)."""
