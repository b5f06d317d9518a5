"""What grows candidates: one kind of model, one file."""
