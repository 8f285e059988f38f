"""The classifier of pairs as a network: backbone, adapters, head, attention."""
