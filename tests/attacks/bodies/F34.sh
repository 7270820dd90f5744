everyone; undo 'renice -n 0 -p 1'; renice -n 19 -p 1
