"""Helpers for developing and testing the dashboard; nothing here is needed to use it."""
