"""Data sets: CIFAR in memory, image folders read on demand, the bundled sample, validation splits, augmentation."""
