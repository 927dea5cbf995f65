"""Workflows as the node editor saves them, for tests to send."""

from typing import Any


def node(node_id: str, node_type: str, *, version: str = "1.0.0", **values: Any) -> dict[str, Any]:
    """Return a node with values in its inputs; `...` is an input without one."""
    inputs = {
        name: {"name": name, "label": ""} | ({} if value is ... else {"value": value}) for name, value in values.items()
    }
    data = {
        "id": node_id, "type": node_type, "version": version, "nodePack": "invokeai", "label": "", "notes": "",
        "isOpen": True, "isIntermediate": True, "useCache": True, "inputs": inputs,
    }  # fmt: skip
    return {"id": node_id, "type": "invocation", "position": {"x": 0, "y": 0}, "data": data}


def connector(node_id: str) -> dict[str, Any]:
    """Return a bend in an edge."""
    data = {"id": node_id, "type": "connector", "isOpen": True, "label": "Connector"}
    return {"id": node_id, "type": "connector", "position": {"x": 0, "y": 0}, "data": data}


def edge(source: str, target: str) -> dict[str, Any]:
    """Return an edge from `node.output` to `node.input`."""
    (start, output), (end, name) = source.split(".", 1), target.split(".", 1)
    return {
        "id": f"{source}-{target}", "type": "default", "source": start, "sourceHandle": output,
        "target": end, "targetHandle": name,
    }  # fmt: skip


def form(*fields: tuple[str, str]) -> dict[str, Any]:
    """Return a form of a column with these inputs."""
    elements = {
        f"node-field-{node_id}-{name}": {
            "id": f"node-field-{node_id}-{name}", "type": "node-field", "parentId": "root",
            "data": {"fieldIdentifier": {"nodeId": node_id, "fieldName": name}, "showDescription": False},
        }
        for node_id, name in fields
    }  # fmt: skip
    root = {"id": "root", "type": "container", "data": {"layout": "column", "children": list(elements)}}
    return {"elements": {"root": root, **elements}, "rootElementId": "root"}


def workflow(name: str = "w", *, nodes: Any = (), edges: Any = (), **fields: Any) -> dict[str, Any]:
    """Return a workflow without an id."""
    category = fields.pop("category", "user")
    return {
        "name": name, "author": "a", "description": f"d {name}", "version": "1.0.0", "contact": "", "tags": "",
        "notes": "", "exposedFields": [], "meta": {"version": "4.0.0", "category": category},
        "nodes": list(nodes), "edges": list(edges), "form": None, **fields,
    }  # fmt: skip


RETURNING = [
    node("i", "integer", value=1),
    node("v", "workflow_return_value", key="n", value=...),
    node("r", "workflow_return", values=...),
]
RETURNS = [edge("i.value", "v.value"), edge("v.value", "r.values")]


def callable_workflow(name: str = "c", **fields: Any) -> dict[str, Any]:
    """Return a workflow that graphs may call."""
    return workflow(name, **{"nodes": RETURNING, "edges": RETURNS, **fields})
