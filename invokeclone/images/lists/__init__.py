"""Lists of images and videos: query parameters, conditions, order, pages, search."""
