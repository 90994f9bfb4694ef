"""The model: augmentation, encoder, head, and its folder on disk."""
