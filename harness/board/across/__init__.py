"""What a board says over several tasks, and how fast each architecture gets to a target. Within a track, never over."""
