"""Checks of arguments, files, devices, modes, intervals and processes: what every other package uses."""
