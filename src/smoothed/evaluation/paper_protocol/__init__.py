"""The paper's evaluation: one attack on single draws, and every vote at every M."""
