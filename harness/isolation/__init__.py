"""Processes that cannot outlive, outgrow or outtalk what started them: each under a supervisor of its own."""
