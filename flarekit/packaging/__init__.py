"""Images: build, verify, save, submit."""
