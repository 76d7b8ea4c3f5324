"""State and rules: formal languages and word problems, for which a state must be tracked step by step."""
