"""The catalogue of attacks as a table: one attack, one named outcome, and the layers that stop it.

`run_catalogue.py` tries all of it without pytest, on emulated hosts too; test_catalogue.py tries it here.
That each layer stops what the table says, and that the attack succeeds without it, is shown beside this
folder, in tests/escapes/test_*.py, by taking layers away.
"""
