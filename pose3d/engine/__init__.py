"""Configuration, checkpoints, training and prediction."""
