"""Pairs as rows of token ids: special tokens, templates, the token cache, batches."""
