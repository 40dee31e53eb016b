"""Adapters: patients as rows, sums over time, series or binary visits, and back."""
