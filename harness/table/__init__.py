"""One table, of one task in one track: its rows, why one may not be ranked, how they compare, and its rounds."""
