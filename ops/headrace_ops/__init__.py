"""Running and watching: command line, embedded stack, processes."""
