"""Prepared sets: where raw files come from, building the arrays that training reads, finding and checking them."""
