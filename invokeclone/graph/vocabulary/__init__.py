"""What nodes are described with: fields, types of models, hints for editors."""
