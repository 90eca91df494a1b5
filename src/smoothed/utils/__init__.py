"""Utilities of all other packages: argument checks, files, devices, modes, intervals, memory and processes."""
