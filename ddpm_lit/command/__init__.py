"""The command `ddpm-lit`: what the terminal says, flags, progress, the page of a run, and
what the commands do."""
