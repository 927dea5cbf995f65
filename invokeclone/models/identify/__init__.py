"""What a file or folder is: the rules and record classes of every family, and the signatures that they share."""
