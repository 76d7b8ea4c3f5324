"""What a run is and what it leaves: its spec, its typed record, and how records are stored and found."""
