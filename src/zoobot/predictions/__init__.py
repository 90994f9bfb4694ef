"""From images to catalogues of posteriors."""
