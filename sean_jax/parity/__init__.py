"""Parity with the authors' network: frozen values that their PyTorch code computes on seeded weights and inputs."""
