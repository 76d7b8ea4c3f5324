"""Where runs are executed: `local` runs them on this machine, each in a process of its own."""
