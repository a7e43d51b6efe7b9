"""The author's own test: plain Python, outside any jail."""

import unittest

from plugsec_plugins.guest import Context
from wordfreq import count


class CountsWords(unittest.TestCase):
    def test_counts_and_ranks(self) -> None:
        result = count(text="To be, or not to be", top=2, ctx=Context())
        self.assertEqual(result["words"], 6)
        self.assertEqual(result["top"], [{"word": "be", "count": 2}, {"word": "to", "count": 2}])


if __name__ == "__main__":
    unittest.main()
