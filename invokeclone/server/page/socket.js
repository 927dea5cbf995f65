// Minimal receive-only socket.io client (Engine.IO 4, WebSocket transport) with reconnection.

import { address } from "./api.js";

const MAX_DELAY = 10_000;

/**
 * Connect and stay connected; return a function that disconnects. `onEvent(name, data)` is called for each event;
 * `onState("online" | "offline" | "refused", message)` for each change. `token()` returns the token of the signed-in user, or null.
 * Each (re)connection subscribes to the queue, so no later event is missed after "online".
 */
export function listen(onEvent, onState, token) {
  let delay = 500;
  let silenceTimer;
  let retryTimer;
  let current;
  let refusal = null;

  function open() {
    const url = new URL(address("ws/socket.io/"));
    url.protocol = url.protocol.replace("http", "ws");
    url.search = "?EIO=4&transport=websocket";
    const socket = current = new WebSocket(url);
    let silenceLimit = 60_000;

    const alive = () => {
      clearTimeout(silenceTimer);
      silenceTimer = setTimeout(() => socket.close(), silenceLimit);
    };
    alive();

    socket.onmessage = ({ data }) => {
      alive();
      if (typeof data !== "string") return;
      const rest = data.slice(1);
      if (data[0] === "0") {
        const { pingInterval, pingTimeout } = JSON.parse(rest);
        silenceLimit = pingInterval + pingTimeout;
        socket.send(`40${token() ? JSON.stringify({ token: token() }) : ""}`);
      } else if (data[0] === "2") {
        socket.send("3");
      } else if (data.startsWith("40")) {
        socket.send(`42${JSON.stringify(["subscribe_queue", { queue_id: "default" }])}`);
        delay = 500;
        refusal = null;
        onState("online");
      } else if (data.startsWith("42")) {
        onEvent(...JSON.parse(rest.slice(1)));
      } else if (data.startsWith("44")) {
        refusal = JSON.parse(rest.slice(1) || "{}").message ?? "The server refused the connection.";
        socket.close();
      } else if (data[0] === "1" || data.startsWith("41")) {
        socket.close();
      }
    };
    socket.onclose = () => {
      clearTimeout(silenceTimer);
      if (socket !== current) return;
      onState(refusal === null ? "offline" : "refused", refusal);
      refusal = null;
      retryTimer = setTimeout(open, delay);
      delay = Math.min(delay * 1.7, MAX_DELAY);
    };
  }

  open();
  return () => {
    const socket = current;
    current = null;
    clearTimeout(retryTimer);
    socket?.close();
  };
}
