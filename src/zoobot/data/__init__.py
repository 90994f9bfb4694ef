"""Tables and pixels in, batches out."""
