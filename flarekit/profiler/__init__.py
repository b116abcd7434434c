"""What a run costs: the organisers' figures, and careful ones beside them."""
