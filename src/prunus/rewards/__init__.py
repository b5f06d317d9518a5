"""What scores candidates: one reward, one file."""
