"""The command line: `flarekit --help`."""
