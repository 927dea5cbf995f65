"""Values: primitives, mathematics, texts, collections, batches, workflows."""
