"""How sessions are stored: the graph of a batch once, with places for its values, and of each item only what is its own.

A row of the queue that has a graph (`graph_id`) holds in `graph_values` the JSON texts that go into the places, and in `session`
what follows the graph in the session's JSON, compressed (or as text, written by an earlier version); before anything has run that
follows from the session's id, and the row holds an empty text (or the id of the execution graph, likewise). A row without one (made
by an earlier version, or by a workflow call) holds the whole session. Clients and workers always get whole sessions.
"""

import zlib

from sqlalchemy import ColumnElement, literal_column

from invokeclone.tables import session_queue

MARK = "\x1e"
"""Stands around the number of each place in a stored graph, and between the values of a row: JSON text never contains it."""

INITIAL_STATE = (
    '"executed":[],"executed_history":[],"results":{},"errors":{},"workflow_call_stack":[],"workflow_call_history":[],'
    '"max_workflow_call_depth":4,"prepared_source_mapping":{},"source_prepared_mapping":{},'
    '"prepared_iteration_paths":{},"ready_order":[],"indegree":{}}'
)
"""What a session holds besides its id and its graphs before anything has run."""

_columns = session_queue.c
TEMPLATE: ColumnElement[str] = literal_column(
    # written out, as in RETURNING SQLAlchemy leaves the names of tables out
    "(SELECT template FROM session_graphs WHERE session_graphs.graph_id = session_queue.graph_id)"
)
STORED: tuple[ColumnElement[str], ...] = (_columns.session_id, _columns.session, TEMPLATE, _columns.graph_values)
"""What `whole` takes."""


def new_session(session_id: str, graph: str) -> str:
    """Return the JSON text of a session that has not begun, for the JSON text of its graph."""
    return f'{{"id":"{session_id}","graph":{graph}{_initial_state(_execution_id(session_id))}'


def _execution_id(session_id: str) -> str:
    """Return the id of the graph of the nodes that will have run: the session's, with its first and last eight digits exchanged."""
    return f"{session_id[-8:]}{session_id[8:-8]}{session_id[:8]}"


def _initial_state(execution_id: str) -> str:
    return f',"execution_graph":{{"id":"{execution_id}","nodes":{{}},"edges":[]}},{INITIAL_STATE}'


def fill(template: str, values: str | None) -> str:
    """Return a stored graph with the values of a row in their places."""
    if values is None:
        return template
    pieces, texts = template.split(MARK), values.split(MARK)
    pieces[1::2] = [texts[int(number)] for number in pieces[1::2]]
    return "".join(pieces)


def compress_state(rest: str) -> bytes:
    """Return what follows the graph in a session's JSON as a row holds it: a sixth of the text of eleven nodes, two fifths of one."""
    return zlib.compress(rest.encode(), 1)


def _decompress_state(session: str | bytes, session_id: str) -> str:
    if isinstance(session, bytes):
        return zlib.decompress(session).decode()
    return session if session.startswith(",") else _initial_state(session or _execution_id(session_id))


def assemble_session(session_id: str, session: str | bytes, template: str | None, values: str | None) -> str:
    """Return the JSON text of a session from what its row holds."""
    if template is None:
        return str(session)
    rest = _decompress_state(session, session_id)
    return f'{{"id":"{session_id}","graph":{fill(template, values)}{rest}'
