"""Metrics, the residual density and predictions."""
