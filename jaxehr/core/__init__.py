"""Core types and checks; imports nothing else of jaxehr."""
