"""Started by the supervisor as `python -I -S -B boot.py ROOT...`: finds the package and enters the jail.

A file run by path is compiled at every start, so everything else lives in modules that are cached.
The roots stay on the path until the plugin's own path replaces it; after the pivot they lead nowhere.
"""

import gc
import sys

gc.disable()  # loading makes no garbage; a plugin gets its collector back before it starts

sys.path += sys.argv[1:]

from plugsec.sandbox import enter  # noqa: E402 - after the path is set

enter.main()
