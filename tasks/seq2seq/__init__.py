"""From one sequence to another: pronunciation, sorting, addition, translation."""
