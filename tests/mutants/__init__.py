"""Mutants: copies of the product with one safeguard taken away, each of which a test must notice."""
