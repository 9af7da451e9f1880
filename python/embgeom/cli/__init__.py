"""The command ``embgeom``."""
