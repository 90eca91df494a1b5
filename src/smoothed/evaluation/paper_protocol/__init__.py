"""The paper's evaluation: one attack on the noisy classifier, then every vote at every M on the attacked images."""
