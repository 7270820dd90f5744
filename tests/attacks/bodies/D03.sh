module dummy; at=$(grep -obUa 'dummy%d' "$ko" | head -n 1); [ -n "$at" ] || skip 'the module has no such text'
printf evil%%%%d | dd of="$ko" bs=1 seek="${at%%:*}" conv=notrunc status=none; grep -qUa 'evil%%d' "$ko" || skip 'the module was not changed'
undo 'rmmod dummy'; $poke module "$ko" && grep -q '^dummy ' /proc/modules
