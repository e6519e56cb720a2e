"""Backups of metadata, blobs and vectors that belong together, and services restored from them."""
