"""The command line: one file a command; each imports only what it runs."""
