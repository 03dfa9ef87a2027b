"""The result records: their schema, their files, and the checks of a results folder."""
