"""Cutouts of galaxies from large FITS mosaics."""
