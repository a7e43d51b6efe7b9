"""One adapter for each kind of plugin, all behind `interface.py`."""
