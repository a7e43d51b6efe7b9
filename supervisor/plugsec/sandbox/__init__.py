"""The jail: one module per kernel layer, and the ordered entry into all of them."""
