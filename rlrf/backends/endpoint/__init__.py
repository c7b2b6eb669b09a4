"""Servers that speak OpenAI's chat protocol, ours or others': one client for all."""
