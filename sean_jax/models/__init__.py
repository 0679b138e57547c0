"""The network of the paper as Flax Linen modules; images and maps are ``[batch, height, width, channels]``."""
