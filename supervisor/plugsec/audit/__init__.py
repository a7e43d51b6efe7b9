"""The tamper-evident audit log: records, chain, segments, checkpoints, proofs."""
