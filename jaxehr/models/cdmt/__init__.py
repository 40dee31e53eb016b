"""CDMT-EHR [cdmt2026]: continuous-time diffusion of mixed-type time series."""
