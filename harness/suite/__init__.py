"""A suite: its schema, the YAML it is written in, and how it is loaded and checked before anything runs."""
