"""The data: CIFAR in memory, folders of images read as they are used, validation splits, crop and flip, the sample."""
