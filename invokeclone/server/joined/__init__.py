"""Workers on other machines, which have joined over a websocket."""
