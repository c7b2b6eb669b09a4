"""vLLM: its environment, and the server that a run starts from it, shares between stages and stops."""
