"""Image metrics as functions of features and logits in float64, and feature extractors."""
