"""Losses and training."""
