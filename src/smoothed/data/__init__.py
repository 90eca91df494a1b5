"""The data: CIFAR in memory, its validation split, crop and flip, and the bundled sample."""
