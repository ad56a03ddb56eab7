"""From a picture's latent to the trajectory that leads back to it."""
