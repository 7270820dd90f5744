undo 'fsfreeze -u /var/log'; fsfreeze -f /var/log
