"""Probabilities that a person prefers chatbot response A or B, or neither: P(A), P(B), P(tie).

Every public name loads on first use, so ``import tiewise as tw`` costs neither torch nor pandas.
"""

import lazy_loader

__version__ = "0.2.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
