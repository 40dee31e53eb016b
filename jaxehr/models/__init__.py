"""Generative models; each package exposes one factory `name(schema, config)`."""
