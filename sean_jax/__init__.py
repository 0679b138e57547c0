"""Unsupervised domain adaptation for semantic segmentation in JAX: Self-Ensembling Attention Networks."""

__version__ = "0.1.0"
