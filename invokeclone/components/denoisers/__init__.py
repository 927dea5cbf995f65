"""Denoisers shared by several families."""
