"""The run folder: what stands in it, whose it is, and what may be believed of it."""
