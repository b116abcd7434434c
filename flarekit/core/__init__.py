"""The nouns every room shares: errors, volumes, facts of a predictor, records, names, files."""
