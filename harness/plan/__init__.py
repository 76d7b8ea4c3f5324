"""What a suite amounts to before anything runs: its runs and trials, their sizes, and what they will cost."""
