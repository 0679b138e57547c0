"""The HTML page of ``python -m sean_jax.report``: a run's files (rundata), warnings (checks), charts, tables, pictures,
and the page that combines them. Needs neither JAX nor TensorFlow.
"""
