"""FLEXGEN-EHR: latent diffusion over static and temporal records [flexgen2024]."""
