// The socket.io protocol (Engine.IO 4, WebSocket transport) as far as a listener needs it, with reconnection.

import { address } from "./api.js";

const LONGEST_WAIT = 10_000;

/**
 * Connect and stay connected. `onEvent(name, data)` gets every event; `onState("online" | "offline")` each change.
 * Each (re)connection subscribes to the queue, so after "online" nothing is missed that happens later.
 */
export function listen(onEvent, onState) {
  let wait = 500;
  let silence;

  function open() {
    const where = new URL(address("ws/socket.io/"));
    where.protocol = where.protocol.replace("http", "ws");
    where.search = "?EIO=4&transport=websocket";
    const socket = new WebSocket(where);
    let patience = 60_000;

    const alive = () => {
      clearTimeout(silence);
      silence = setTimeout(() => socket.close(), patience);
    };
    alive();

    socket.onmessage = ({ data }) => {
      alive();
      if (typeof data !== "string") return;
      const rest = data.slice(1);
      if (data[0] === "0") {
        const { pingInterval, pingTimeout } = JSON.parse(rest);
        patience = pingInterval + pingTimeout;
        socket.send("40");
      } else if (data[0] === "2") {
        socket.send("3");
      } else if (data.startsWith("40")) {
        socket.send(`42${JSON.stringify(["subscribe_queue", { queue_id: "default" }])}`);
        wait = 500;
        onState("online");
      } else if (data.startsWith("42")) {
        onEvent(...JSON.parse(rest.slice(1)));
      } else if (data[0] === "1" || data.startsWith("41") || data.startsWith("44")) {
        socket.close();
      }
    };
    socket.onclose = () => {
      clearTimeout(silence);
      onState("offline");
      setTimeout(open, wait);
      wait = Math.min(wait * 1.7, LONGEST_WAIT);
    };
  }

  open();
}
