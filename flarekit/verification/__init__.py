"""What an image must do: checks, trials under chosen conditions, and why a trial failed."""
