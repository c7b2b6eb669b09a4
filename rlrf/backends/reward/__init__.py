"""Reward models: sequence classification with one output, here or behind a server."""
