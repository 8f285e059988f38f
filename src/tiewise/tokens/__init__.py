"""Pairs as rows of tokens: template and truncation, the cache, batches. No torch."""
