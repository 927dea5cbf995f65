"""ComfyUI's API over the queue: workflows of its common core nodes become graphs.

`nodes/` has a function per ComfyUI node, `language.py` reads prompts, `workflow.py` checks a workflow as ComfyUI does,
`translate.py` draws the graph of one, `record.py` keeps the workflow with the queue's item, `store.py` finds such items,
`history.py` tells of them in ComfyUI's form, `sockets.py` tells clients of their prompts as they run, `api.py` has the routes.
"""
