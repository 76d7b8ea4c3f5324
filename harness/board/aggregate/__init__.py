"""What holds over several tasks of one track: normalised scores, mean ranks, and time to target."""
