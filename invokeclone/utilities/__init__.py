"""Help for writing prompts and text: dynamic prompts, language models' suggestions, the user's fonts."""
