"""Keys, signatures, bundles and trust: from bytes of unknown origin to evidence."""
