"""Certificates: the SavedModel that a zoo archive ships beside our network with the archive's own weights."""
