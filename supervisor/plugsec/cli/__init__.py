"""The command line: one thin module per command group; Rich lives only here."""
