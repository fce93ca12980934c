"""Horizontal aggregation."""
