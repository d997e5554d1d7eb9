"""Millimetres and pixels: skeletons, cameras, crops and the (u, v, d) codec."""
