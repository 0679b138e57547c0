"""Data sets: descriptions (``dataset``, ``catalogue``), preparation, and input pipelines (``pipeline``).

TensorFlow is imported in this package only, and only by the tf.data engine (``tf_engine``).
"""
