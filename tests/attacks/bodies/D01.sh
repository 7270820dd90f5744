module dummy; unsigned
undo 'rmmod dummy'; $poke module "$ko" && grep -q '^dummy ' /proc/modules
