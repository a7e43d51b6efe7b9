"""A seeded, structure-aware fuzzer of everything that reads a stranger's bytes: `make fuzz`."""
