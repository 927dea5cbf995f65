// Minimal receive-only socket.io client (Engine.IO 4, WebSocket transport) with reconnection.

import { address } from "./api.js";

const MAX_DELAY = 10_000;

/**
 * Connect and stay connected. `onEvent(name, data)` is called for each event; `onState("online" | "offline")` for each change.
 * Each (re)connection subscribes to the queue, so no later event is missed after "online".
 */
export function listen(onEvent, onState) {
  let delay = 500;
  let silenceTimer;

  function open() {
    const url = new URL(address("ws/socket.io/"));
    url.protocol = url.protocol.replace("http", "ws");
    url.search = "?EIO=4&transport=websocket";
    const socket = new WebSocket(url);
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
        socket.send("40");
      } else if (data[0] === "2") {
        socket.send("3");
      } else if (data.startsWith("40")) {
        socket.send(`42${JSON.stringify(["subscribe_queue", { queue_id: "default" }])}`);
        delay = 500;
        onState("online");
      } else if (data.startsWith("42")) {
        onEvent(...JSON.parse(rest.slice(1)));
      } else if (data[0] === "1" || data.startsWith("41") || data.startsWith("44")) {
        socket.close();
      }
    };
    socket.onclose = () => {
      clearTimeout(silenceTimer);
      onState("offline");
      setTimeout(open, delay);
      delay = Math.min(delay * 1.7, MAX_DELAY);
    };
  }

  open();
}
