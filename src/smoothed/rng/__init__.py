"""Random numbers: counter-based noise, seeds, and the sources that noise layers draw from."""
