"""Latency and accuracy of zoo models, measured."""
