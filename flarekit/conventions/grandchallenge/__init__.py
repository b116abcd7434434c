"""Any algorithm of grand-challenge.org, whose sockets a predictor's settings name."""
