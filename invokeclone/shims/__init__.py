"""Other dialects over the same queue: each folder translates one, and none makes a picture by itself."""
