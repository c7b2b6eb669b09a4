"""Fine-tuning by trl, in a process of its own."""
