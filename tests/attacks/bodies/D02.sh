module dummy; unsigned
undo 'rmmod dummy'; $poke module-bytes "$ko" && grep -q '^dummy ' /proc/modules
