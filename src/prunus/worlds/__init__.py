"""Small task domains whose judge is exact."""
