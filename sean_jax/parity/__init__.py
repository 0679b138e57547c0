"""Compares this project with values that the authors' PyTorch code computed on seeded weights and inputs."""
