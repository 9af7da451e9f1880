"""A model's matrix with its tokens: spelling, matching, provenance, norms."""
