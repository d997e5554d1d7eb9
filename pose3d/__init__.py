"""Train, judge and trust a 3-D human pose regressor."""
