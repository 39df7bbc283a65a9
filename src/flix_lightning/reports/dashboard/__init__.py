"""One HTML page of what a folder of runs holds: no server, no script, nothing loaded from elsewhere."""
