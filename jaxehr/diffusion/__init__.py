"""Diffusion on arrays: schedules, preconditioning, embeddings, guidance, samplers."""
