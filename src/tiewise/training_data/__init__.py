"""Which rows a run works on, what it may learn from them, and who has seen them."""
