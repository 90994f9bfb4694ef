"""Posteriors and metrics: arrays in, arrays out; no torch modules, no files."""
