"""The CPU-class model: counted features and scikit-learn."""
