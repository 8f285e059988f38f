"""One fold or all of them: rows into steps, steps into an adapter."""
