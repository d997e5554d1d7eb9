"""A synthetic look-alike of Human3.6M: posed bodies under its four cameras, rendered to a store."""
