"""Building blocks of training objectives: losses, moving averages, augmentation, optimisers, randomness, devices."""
