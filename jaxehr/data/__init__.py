"""Readers, files, splitting and transforms of cohorts; imports only `jaxehr.core`."""
