"""Data sets: what they hold (classes, datasets), how they are prepared (builder) and read (pipeline).

TensorFlow is imported in this package only, and only by the tf.data engine (``tf_engine``).
"""
