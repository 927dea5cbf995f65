"""Model families, one folder each: records and architectures, loaders, pipelines, nodes and graph recipes."""
