"""ComfyUI's API over the queue: workflows of its core nodes become graphs.

`nodes/` has a function per ComfyUI node, `prompt_parser.py` parses prompts, `workflow.py` validates a workflow as
ComfyUI does, `translate.py` builds its graph, `record.py` stores the workflow with the queue item, `store.py` queries
such items, `history.py` formats them for clients, `sockets.py` sends clients the progress of their prompts, `api.py`
has the routes.
"""
