"""The server of ``tiewise serve``: requests, batches, limits."""
