"""Stores, batches and augmentation."""
