"""The nouns every stage shares: errors, cases, volumes, predictor facts, files."""
