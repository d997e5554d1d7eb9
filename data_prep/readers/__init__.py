"""Readers: one module per layout of files that people have, each yielding takes."""
