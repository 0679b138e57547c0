"""The page of ``python -m sean_jax.report``: what a run directory holds (rundata), what smells in it (checks), charts,
tables and pictures, and the template that holds them together (page). Needs neither JAX nor TensorFlow.
"""
