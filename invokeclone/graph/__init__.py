"""Node and field vocabulary, graphs and their validation, execution state, and the recipes that build graphs."""
