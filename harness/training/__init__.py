"""One run, from its spec to its record: the loop every architecture is trained by, and how it is scored."""
