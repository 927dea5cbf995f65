"""ComfyUI's API over the queue: workflows of its core nodes become graphs.

`nodes/` has a function per ComfyUI node, `prompt_parser.py` parses prompts, `workflow.py` validates a workflow as
ComfyUI does, `translate.py` builds its graph, `record.py` stores the workflow with the queue item, `store.py` queries
such items, `history.py` and `jobs.py` format them for clients, `sockets.py` connects clients and `progress.py` sends
them the progress of their prompts as `frames.py` encodes it. `files/` has uploads and user data, `routes/` the routes,
which `api.py` joins.
"""
