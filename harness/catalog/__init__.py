"""What is known by name: architectures, tasks, suites, corpora, questions."""
