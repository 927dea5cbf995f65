// The state that modules share. Each changes it with `set` and is notified of changes with `on`; the server's state overrides it.

export const state = {
  entered: false, // whether the page may be used: somebody is signed in, or there are no accounts
  user: null, // the signed-in user; null without accounts
  models: [], // main models that can generate images, with what each can do
  extras: [], // LoRAs and VAEs
  model: null, // the chosen main model
  loras: [], // chosen LoRAs: { key, weight }
  presets: [], // style presets
  style: "", // id of the chosen style preset
  source: null, // the input image: { image, mask }; a mask has name, preview and edits
  boards: [],
  board: "", // id of the board that the gallery shows and new images go to; "": all, "none": no board
};
const listeners = [];

/** Call `listener` after each change of one of the state's `keys`. */
export function on(keys, listener) { listeners.push([keys, listener]); }

export function set(changes) {
  Object.assign(state, changes);
  for (const [keys, listener] of listeners) if (keys.some((key) => key in changes)) listener();
}

/** What the chosen model supports, by the name of the feature; nothing without a model. */
export const features = () => state.model?.features ?? {};

/** Whether the user may install models and pause the queue. */
export const isAdmin = () => !state.user || state.user.is_admin;
