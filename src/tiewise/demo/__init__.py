"""A page to try a model on, for this machine alone."""
