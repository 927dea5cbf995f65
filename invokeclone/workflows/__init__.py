"""The workflow library: what the node editor saves, with thumbnails and the workflows that come along."""
