"""Galaxies, the volunteers who look at them, and whole surveys whose truth is known."""
