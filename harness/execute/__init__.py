"""How the runs of a suite are executed, each in its own process."""
