"""Properties of images that a source-trained network tells: superpixels, their labels, and label distributions."""
