"""Run folders: configuration, data, folds, predictions, scores and locks."""
