"""What a run leaves in writing: its record, a line per case, figures of labels, pictures."""
