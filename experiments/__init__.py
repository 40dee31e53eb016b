"""Entry points: one per table or figure. They hold loops and settings, no formula."""
