"""What several test rooms share: homes with a trusted key, bundles made in memory, jails with a layer off."""
