"""Look-alike trees: synthetic performances written in every layout that a reader reads."""
