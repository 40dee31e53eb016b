"""Networks as pure Flax modules; they know arrays, never patients."""
