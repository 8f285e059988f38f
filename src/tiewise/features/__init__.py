"""The feature model: text counts, logistic regression and boosted trees."""
