"""Runs that keep their work in a folder, block by block."""
