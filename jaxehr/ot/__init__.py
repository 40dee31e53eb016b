"""Optimal transport between latent spaces; it knows arrays, never patients."""
