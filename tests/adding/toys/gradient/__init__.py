"""A toy family: its model is a folder with one colour in it, its only node paints a gradient to that colour."""
