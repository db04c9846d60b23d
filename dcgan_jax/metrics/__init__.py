"""Metrics of images, computed in float64, and feature extractors."""
