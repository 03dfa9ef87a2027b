"""The commands, one file each, named as typed. A file has the command's options and prints its output.

Everything else that a command needs is imported when it runs, so that `--help` answers at once.
"""
