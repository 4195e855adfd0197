"""One file per process, and the pure rules they apply."""
