"""Training on small machines: from labelled scans to a predictor folder."""
