"""Flows as HTTP functions: ``exoflow serve``."""
