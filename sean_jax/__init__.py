"""Unsupervised domain adaptation for semantic segmentation in JAX: Self-Ensembling Attention Networks."""

__version__ = "0.2.0"
