"""The process that runs queue items: one per device, tied to the server by a pair of pipes and to the queue by the database."""
