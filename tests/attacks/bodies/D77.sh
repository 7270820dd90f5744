d=$(ls -d /sys/bus/pci/devices/*/driver_override | head -n 1); need "${d:-none}"; undo "echo '' >$d"; echo evil >"$d" && grep -q evil "$d"
