"""Models: `files` reads them, `configs` describes them, `identify` recognizes them, `records` keeps them, `install` adds them."""
