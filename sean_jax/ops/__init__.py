"""Building blocks with one meaning each; the formulation may depend on the platform, the values may not."""
