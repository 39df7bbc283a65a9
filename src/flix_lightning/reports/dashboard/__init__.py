"""One HTML page of what a folder of runs holds: no server, nothing loaded from elsewhere."""
