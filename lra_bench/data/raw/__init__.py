"""Reading raw files: archives, tokenizers, and the orders in which published code splits examples."""
