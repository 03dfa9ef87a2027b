"""The machine: the compiler, the allocator, memory, and what a record says of the system."""
