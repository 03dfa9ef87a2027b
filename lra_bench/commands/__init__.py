"""The commands, one file each, named as typed: its options and what it prints. What a command needs is imported when it
runs, so that `--help` answers at once."""
