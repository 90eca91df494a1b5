"""Files of figures."""

import pytest

from smoothed.report import figures
from smoothed.report.figures import curve_style, new_figure, write_figure


@pytest.mark.parametrize("suffix", ["svg", "pdf", "png"])
def test_the_same_figure_has_the_same_bytes_whenever_it_is_written(suffix, tmp_path, monkeypatch):
    def written(name: str, seconds: str) -> bytes:
        monkeypatch.setenv("SOURCE_DATE_EPOCH", seconds)  # the time that matplotlib writes where it writes one
        figure = new_figure(3, 2)
        figure.add_subplot().plot([0, 1, 2], [3, 1, 2], label=f"curve of {suffix}", **curve_style(0, 1))
        return write_figure(figure, tmp_path / f"{name}.{suffix}").read_bytes()

    assert written("first", "1000000000") == written("second", "1500000000")
    monkeypatch.setattr(figures, "DATES", {})
    differs = written("third", "1000000000") != written("fourth", "1500000000")
    assert differs == (suffix != "png")  # without this, the dates would differ
