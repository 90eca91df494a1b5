"""The order of the examples in the gallery."""

ORDER = (
    "plot_vote.py",
    "plot_noise_inside.py",
    "plot_sigma.py",
    "plot_num_samples.py",
    "plot_pgd_and_epgd.py",
    "plot_early_stopping.py",
    "plot_certified_radii.py",
    "plot_own_vote.py",
    "plot_calibrate_noise.py",
    "plot_adversarial_training.py",
)


class GalleryOrder:
    """Sort key of sphinx-gallery: the position in `ORDER`; an example that is not listed there is an error."""

    def __init__(self, source: str) -> None:
        self.source = source

    def __call__(self, filename: str) -> int:
        """Return the position of the example."""
        return ORDER.index(filename)
