"""Convolutions with one meaning, formulated for the platform they run on."""

from jax import lax

# Every 3×3 convolution of the network goes through this name (Flax's nn.Conv takes it as an argument), so that a
# formulation that is faster on some platform replaces it here and nowhere else.
conv_general_dilated = lax.conv_general_dilated
