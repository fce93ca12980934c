"""Trades decided by measurement."""
