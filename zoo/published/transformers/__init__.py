"""Language models in transformers' format: run by transformers, by our modules, or written for transformers to open."""
