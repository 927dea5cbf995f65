"""Storage format of sessions: a batch's graph is stored once as a template, and each item stores only its own part.

A queue row with a graph (`graph_id`) stores in `graph_values` the JSON texts to substitute into the template, and in
`session` the part of the session's JSON after the graph, compressed (or as text, by an earlier version). Before the
first node has run, that part follows from the session's id and the row stores an empty text (or, by an earlier version,
the id of the execution graph). A row without a graph (by an earlier version, or of a workflow call) stores the whole
session. Clients and workers always get whole sessions.
"""

import zlib

from sqlalchemy import ColumnElement, literal_column

from invokeclone.tables import session_queue

MARK = "\x1e"
"""Encloses the number of each placeholder in a template and separates a row's values: never occurs in JSON text."""

INITIAL_STATE = (
    '"executed":[],"executed_history":[],"results":{},"errors":{},"workflow_call_stack":[],"workflow_call_history":[],'
    '"max_workflow_call_depth":4,"prepared_source_mapping":{},"source_prepared_mapping":{},'
    '"prepared_iteration_paths":{},"ready_order":[],"indegree":{}}'
)
"""Fields of a new session other than its id and graphs."""

_columns = session_queue.c
TEMPLATE: ColumnElement[str] = literal_column(
    # as text, because SQLAlchemy omits table names in RETURNING
    "(SELECT template FROM session_graphs WHERE session_graphs.graph_id = session_queue.graph_id)"
)
STORED: tuple[ColumnElement[str], ...] = (_columns.session_id, _columns.session, TEMPLATE, _columns.graph_values)
"""The columns for `assemble_session`."""


class DamagedSession(ValueError):
    """The columns of a stored session do not give its text, as after damage of the database's file."""


def new_session(session_id: str, graph: str) -> str:
    """Return the JSON text of a new session from the JSON text of its graph."""
    return f'{{"id":"{session_id}","graph":{graph}{_initial_state(_execution_id(session_id))}'


def _execution_id(session_id: str) -> str:
    """Return the id of the execution graph: the session's id with its first and last 8 digits swapped."""
    return f"{session_id[-8:]}{session_id[8:-8]}{session_id[:8]}"


def _initial_state(execution_id: str) -> str:
    return f',"execution_graph":{{"id":"{execution_id}","nodes":{{}},"edges":[]}},{INITIAL_STATE}'


def fill(template: str, values: str | None) -> str:
    """Return a template with the values of a row substituted for its placeholders."""
    if values is None:
        return template
    pieces, texts = template.split(MARK), values.split(MARK)
    pieces[1::2] = [texts[int(number)] for number in pieces[1::2]]
    return "".join(pieces)


def compress_state(rest: str) -> bytes:
    """Compress the part of a session's JSON after the graph: to 1/6 of the text for 11 nodes, 2/5 for one node."""
    return zlib.compress(rest.encode(), 1)


def _decompress_state(session: str | bytes, session_id: str) -> str:
    if isinstance(session, bytes):
        return state_text(session)
    return session if session.startswith(",") else _initial_state(session or _execution_id(session_id))


def state_text(packed: bytes) -> str:
    """Return the text of a state that `compress_state` compressed."""
    return zlib.decompress(packed).decode()


def assemble_session(session_id: str, session: str | bytes, template: str | None, values: str | None) -> str:
    """Return the JSON text of a session from the columns STORED of its row. Raises DamagedSession."""
    if template is None:
        return str(session)
    try:
        rest = _decompress_state(session, session_id)
        return f'{{"id":"{session_id}","graph":{fill(template, values)}{rest}'
    except (ValueError, IndexError, zlib.error) as error:
        raise DamagedSession(f"the stored session {session_id} is damaged: {error}") from error


def readable_session(session_id: str, session: str | bytes, template: str | None, values: str | None) -> str:
    """Return the JSON text of a session as `assemble_session` does; of a damaged one, that of a new one without nodes."""
    try:
        return assemble_session(session_id, session, template, values)
    except DamagedSession:
        return new_session(session_id, f'{{"id":"{session_id}","nodes":{{}},"edges":[]}}')
