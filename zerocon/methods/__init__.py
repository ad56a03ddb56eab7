"""Samplers: from a trajectory and conditions to the edited latent. One file a paper."""
