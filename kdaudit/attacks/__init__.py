"""Ways to get training text out of a model; each decides what is exposed under it."""
