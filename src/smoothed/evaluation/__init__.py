"""Evaluation: accuracy with intervals, clean and attacked, of one draw and of every vote."""
