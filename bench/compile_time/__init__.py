"""How long a process takes to its first step, part by part."""
