"""What a person looks at afterwards: figures and pictures."""
