"""The command line: `gyoza.cli.main` assembles it, one module a command or group of commands."""
