// Boards: which one the gallery shows and new images go to; adding, renaming and deleting them.

import * as api from "./api.js";
import { $, debounce } from "./dom.js";
import { ask } from "./dialogs.js";
import { attempt } from "./notices.js";
import { on, set, state } from "./state.js";
import { load, save } from "./storage.js";

const KEY = "invokeclone-board";

export function prepare() {
  set({ board: load(KEY, "") });
  $("board").addEventListener("change", () => set({ board: $("board").value }));
  $("board-add").addEventListener("click", add);
  $("board-rename").addEventListener("click", rename);
  $("board-delete").addEventListener("click", remove);
  on(["boards", "board"], show);
}

export const reload = debounce(() => loadBoards(), 400);

export const loadBoards = () => attempt(async () => {
  const boards = await api.boards();
  const isKnown = state.board === "none" || boards.some(({ board_id }) => board_id === state.board);
  set({ boards, ...(isKnown || !state.board ? {} : { board: "" }) });
});

/** Whether the user may change a board. */
export const isOwn = (board) => !state.user || state.user.is_admin || board.user_id === state.user.user_id;

/** Return the options of a list of boards. */
export const options = () => state.boards.map((board) => new Option(`${board.board_name} (${board.image_count + board.asset_count})`, board.board_id));

function show() {
  $("board").replaceChildren(new Option("All boards", ""), new Option("No board", "none"), ...options());
  $("board").value = state.board;
  const board = state.boards.find(({ board_id }) => board_id === state.board);
  for (const id of ["board-rename", "board-delete"]) $(id).hidden = !board || !isOwn(board);
  $("board-hint").hidden = !board;
  $("board-hint").textContent = board ? `New images go to “${board.board_name}”.` : "";
  save(KEY, state.board);
}

const askName = (title, submit, value) => ask({ title, submit, fields: [{ name: "name", label: "Name", value, required: true }] });
const current = () => state.boards.find(({ board_id }) => board_id === state.board);

async function add() {
  const values = await askName("New board", "Create");
  if (values) await attempt(async () => {
    const { board_id } = await api.addBoard(values.name);
    await loadBoards();
    set({ board: board_id });
  });
}

async function rename() {
  const values = await askName("Rename the board", "Rename", current().board_name);
  if (values) await attempt(async () => { await api.renameBoard(state.board, values.name); await loadBoards(); });
}

async function remove() {
  const text = `“${current().board_name}” is deleted. Its images stay in the gallery.`;
  if (!await ask({ title: "Delete the board", text, submit: "Delete", danger: true })) return;
  await attempt(async () => { await api.deleteBoard(state.board); await loadBoards(); });
}
