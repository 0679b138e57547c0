"""The HTML page of ``python -m sean_jax.report``: a run's files (rundata), warnings (checks), charts, tables, pictures,
and the page that combines them. Needs neither JAX nor TensorFlow.
"""

import logging

logging.getLogger("matplotlib").setLevel(logging.ERROR)  # when first imported, it logs that it builds a font cache
