"""A model's matrix with its tokens: token formats, matching, provenance, norms."""
